"""The published sizes: true parameters and MACs to the unit, Table 1's figures by its own rule."""

from typing import Any

import pytest
import torch

from TeachFormerCore.networks import DEFAULT_IMAGE_SIZE, NETWORKS, SegmentationNetwork, build_network
from TeachFormerCore.networks.counting import Counts, count_parameters, measure

# (name, dims): parameters, MACs, parameters and operations by the rule of Table 1
FULL_SIZE = {
    ("h_denseformer", 3): (11_561_288, 706_512_927_744, 11_374_664, 960_385_206_528),
    ("swin_unetr", 3): (5_584_700, 280_148_752_800, 5_386_970, 280_908_780_888),
    ("unetr", 3): (96_324_002, 257_082_771_456, 95_764_130, 282_188_178_432),
    ("missu", 3): (4_988_050, 179_302_367_232, 4_240_594, 154_381_344_768),
    ("h_denseformer_light", 3): (1_573_016, 47_420_411_904, 1_526_360, 62_727_592_320),
    ("swin_unetr_light", 3): (1_548_704, 76_575_762_000, 1_350_974, 74_675_951_448),
    ("ux_net", 3): (5_119_568, 37_765_255_968, 5_118_752, 41_510_239_776),
    ("h_denseformer", 2): (5_197_032, 27_019_837_440, 4_975_848, 32_336_474_112),
    ("swin_unetr", 2): (11_057_276, 35_838_805_248, 11_042_066, 37_941_113_808),
    ("unetr", 2): (87_954_690, 62_634_590_208, 87_512_322, 59_415_330_816),
    ("mdvit", 2): (30_135_524, 23_619_804_160, 30_303_460, 24_946_318_336),
    ("h_denseformer_light", 2): (1_312_224, 3_840_638_976, 1_256_928, 3_318_239_232),
    ("swin_unetr_light", 2): (2_782_388, 9_194_504_832, 2_767_178, 9_640_842_192),
    ("ux_net", 2): (4_718_882, 18_141_290_496, 4_715_618, 20_274_831_360),
}

# The same networks built for 2 x 64^3 and 3 x 128^2: parameters and operations by the rule of Table 1
SMALL_SIZE = {
    ("h_denseformer", 3): (11_391_048, 84_264_624_128),
    ("swin_unetr", 3): (5_584_700, 24_901_106_424),
    ("unetr", 3): (95_813_282, 24_773_722_112),
    ("missu", 3): (4_307_090, 13_553_369_088),
    ("h_denseformer_light", 3): (1_530_456, 5_457_920_000),
    ("swin_unetr_light", 3): (1_548_704, 6_681_526_392),
    ("ux_net", 3): (5_119_568, 3_644_246_016),
    ("h_denseformer", 2): (5_000_424, 3_536_318_464),
    ("swin_unetr", 2): (11_057_276, 4_420_995_192),
    ("unetr", 2): (87_561_474, 6_601_703_424),
    ("h_denseformer_light", 2): (1_263_072, 312_070_144),
    ("swin_unetr_light", 2): (2_782_388, 1_124_186_232),
    ("ux_net", 2): (4_718_882, 2_252_759_040),
}


def on_meta(name: str, dims: int, *, size: int | None = None, **arguments: Any) -> SegmentationNetwork:
    with torch.device("meta"):
        return build_network(
            name,
            in_channels={2: 3, 3: 2}[dims],
            out_channels=2,
            spatial_dims=dims,
            image_size=None if size is None else (size,) * dims,
            **arguments,
        )


def counts_of(network: SegmentationNetwork) -> Counts:
    return measure(network, torch.empty(1, network.in_channels, *network.image_size, device="meta"))


def test_all_14_rows_of_table_1_are_there() -> None:
    rows = {(name, dims) for name, entry in NETWORKS.items() for dims in entry.published}
    assert rows == set(FULL_SIZE)
    assert len(rows) == 14


@pytest.mark.parametrize(("name", "dims"), FULL_SIZE)
def test_full_size(name: str, dims: int) -> None:
    counts = counts_of(on_meta(name, dims, table1=True))
    found = (counts.parameters, counts.macs, counts.table1_parameters, counts.table1_operations)
    assert found == FULL_SIZE[name, dims]
    assert counts.flops == 2 * counts.macs
    assert counts.coarse_shape[1:] == tuple(n // 16 for n in DEFAULT_IMAGE_SIZE[dims])
    assert counts.fine_shape[1:] == DEFAULT_IMAGE_SIZE[dims]

    millions, gmacs = NETWORKS[name].published[dims]
    assert counts.table1_parameters / 1e6 == pytest.approx(millions, rel=0.006)
    if (name, dims) == ("swin_unetr_light", 3):
        gmacs = 74.68  # published as 75.68, against the three other rows of this structure: a misprint
    assert counts.table1_operations / 1e9 == pytest.approx(gmacs, rel=0.005)


@pytest.mark.parametrize(("name", "dims"), SMALL_SIZE)
def test_small_size(name: str, dims: int) -> None:
    counts = counts_of(on_meta(name, dims, size={2: 128, 3: 64}[dims], table1=True))
    assert (counts.parameters, counts.table1_operations) == SMALL_SIZE[name, dims]


@pytest.mark.parametrize(
    ("name", "dims", "parameters"),
    [
        ("swin_unetr", 3, 3_996_620),
        ("swin_unetr_light", 3, 1_070_576),
        ("swin_unetr", 2, 6_317_516),
        ("swin_unetr_light", 2, 1_588_100),
        ("mdvit", 2, 28_525_282),
        ("h_denseformer_light", 3, 1_573_016 - 2 * (16 + 32 + 64) - 3 * 2),  # without the three lower heads
        ("unetr", 3, 96_324_002),
        ("missu", 3, 4_988_050),
    ],
)
def test_the_default_build_leaves_out_what_is_never_trained(name: str, dims: int, parameters: int) -> None:
    assert count_parameters(on_meta(name, dims)) == parameters


def test_the_light_h_denseformer_is_7_times_smaller_and_15_times_cheaper() -> None:
    teacher, student = FULL_SIZE["h_denseformer", 3], FULL_SIZE["h_denseformer_light", 3]
    assert teacher[0] / student[0] == pytest.approx(7.3, abs=0.1)
    assert teacher[1] / student[1] == pytest.approx(14.9, abs=0.1)
    assert teacher[3] / student[3] == pytest.approx(15.3, abs=0.1)


def residual_block(source: int, width: int, kernel: int) -> int:
    return kernel * (source * width + width**2) + (source * width if source != width else 0)


@pytest.mark.parametrize(("dims", "f", "channels", "classes", "depth"), [(3, 8, 3, 4, 8), (2, 5, 1, 2, 24)])
def test_closed_form_of_h_denseformer(dims: int, f: int, channels: int, classes: int, depth: int) -> None:
    d, c, size = 3**dims, 4 * f, 48
    tokens = (size // 16) ** dims
    paths = channels * (16**dims * c + c + tokens * c + depth // 4 * (257 * c + 48320))
    ups = 32 * d * channels * f**2 + 8 * f + 32 * d * f**2 + 4 * f + 8 * d * f**2 + 2 * f + 2 * d * f**2 + f
    encoders = d * (channels * f + f**2) + 4 * f + 6 * d * f**2 + 8 * f
    encoders += 24 * d * f**2 + 16 * f + 96 * d * f**2 + 32 * f
    decoders = sum(5 * d * width**2 + 5 * width for width in (4 * f, 2 * f, f))
    expected = paths + ups + encoders + decoders + 15 * f * classes + 4 * classes
    with torch.device("meta"):
        network = build_network(
            "h_denseformer", in_channels=channels, out_channels=classes, spatial_dims=dims, image_size=(size,) * dims,
            filters=f, transformer_depth=depth, table1=True,
        )  # fmt: skip
    assert count_parameters(network) == expected
    assert counts_of(network).table1_parameters == expected - channels * tokens * c


@pytest.mark.parametrize(("dims", "f", "channels", "classes"), [(3, 6, 1, 3), (2, 12, 4, 2)])
def test_closed_form_of_swin_unetr(dims: int, f: int, channels: int, classes: int) -> None:
    d, t = 3**dims, 2**dims
    expected = t * channels * f + f
    for level in range(4):
        width, heads = f * 2**level, 3 * 2**level
        expected += 2 * (12 * width**2 + 13 * width + 13**dims * heads) + 2 * t * width + 2 * t * width**2
    expected += d * (channels * f + f * f) + channels * f + 2 * d * f**2 + 8 * d * f**2 + 128 * d * f**2
    for a, b in ((8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f), (f, f)):
        expected += t * a * b + 3 * d * b**2 + 2 * b**2
    expected += f * classes + classes
    with torch.device("meta"):
        network = build_network(
            "swin_unetr", in_channels=channels, out_channels=classes, spatial_dims=dims, image_size=(64,) * dims,
            features=f, table1=True,
        )  # fmt: skip
    assert count_parameters(network) == expected
    assert counts_of(network).table1_parameters == expected - 2 * 13**dims * 45


@pytest.mark.parametrize(("dims", "f", "h", "m", "layers", "channels"), [(3, 4, 24, 40, 5, 3), (2, 6, 36, 32, 3, 1)])
def test_closed_form_of_unetr(dims: int, f: int, h: int, m: int, layers: int, channels: int) -> None:
    d, t, classes, size = 3**dims, 2**dims, 3, 48
    tokens = (size // 16) ** dims
    expected = 16**dims * channels * h + h + tokens * h
    expected += layers * (4 * h**2 + h + 2 * h * m + m + h + 4 * h) + 2 * h + residual_block(channels, f, d)
    expected += t * h * 2 * f + 2 * (t * 4 * f**2 + residual_block(2 * f, 2 * f, d))
    expected += t * h * 4 * f + (t * 16 * f**2 + residual_block(4 * f, 4 * f, d)) + t * h * 8 * f
    for a, b in ((h, 8 * f), (8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f)):
        expected += t * a * b + residual_block(2 * b, b, d)
    expected += f * classes + classes
    with torch.device("meta"):
        network = build_network(
            "unetr", in_channels=channels, out_channels=classes, spatial_dims=dims, image_size=(size,) * dims,
            features=f, hidden_size=h, feed_forward_size=m, layers=layers, skip_layers=(1, 2, 3),
        )  # fmt: skip
    assert count_parameters(network) == expected
    assert counts_of(network).table1_parameters == expected - tokens * h


@pytest.mark.parametrize(("dims", "widths", "h", "channels"), [(3, (4, 5, 6, 7), 9, 2), (2, (8, 16, 32, 64), 128, 3)])
def test_closed_form_of_ux_net(dims: int, widths: tuple[int, ...], h: int, channels: int) -> None:
    d, t, k, classes = 3**dims, 2**dims, 7**dims, 4
    f0, f1, f2, f3 = widths
    norms = 2 * f0 + sum(2 * a for a in (f0, f1, f2)) + sum(2 * 3 * a for a in widths)
    scales = sum(2 * a for a in widths)
    expected = k * channels * f0 + 3 * f0
    expected += sum(2 * a + t * a * b + b for a, b in ((f0, f1), (f1, f2), (f2, f3)))
    expected += sum(2 * (k * a + 17 * a) + 2 * a for a in widths)
    with torch.device("meta"):
        network = build_network(
            "ux_net", in_channels=channels, out_channels=classes, spatial_dims=dims, image_size=(64,) * dims,
            widths=widths, hidden_size=h,
        )  # fmt: skip
    pairs = [(channels, f0), (f0, f1), (f1, f2), (f2, f3), (f3, h)]
    expected += sum(residual_block(a, b, d) for a, b in pairs)
    expected += sum(t * a * b + residual_block(2 * b, b, d) for a, b in ((h, f3), (f3, f2), (f2, f1), (f1, f0)))
    expected += residual_block(f0, f0, d) + f0 * classes + classes
    assert count_parameters(network) == expected
    assert counts_of(network).table1_parameters == expected - norms - scales
