"""The same weights in MONAI's networks give the same outputs: UNETR whole, Swin-UNETR where the structure is one."""

from typing import Any

import pytest
import torch
from small_networks import build_network
from torch import nn

from TeachFormerCore.networks.swin_unetr import normed

nets = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed")
pytest.importorskip("einops", reason="MONAI's transformers need einops, which is not installed")


def copy_residual(ours: Any, theirs: Any) -> None:
    ours.convolution1.load_state_dict(theirs.conv1.conv.state_dict())
    ours.convolution2.load_state_dict(theirs.conv2.conv.state_dict())
    if hasattr(theirs, "conv3"):
        ours.shortcut[0].load_state_dict(theirs.conv3.conv.state_dict())


def copy_up(ours: Any, theirs: Any) -> None:
    ours.up.load_state_dict(theirs.transp_conv.conv.state_dict())
    copy_residual(ours.residual, theirs.conv_block)


def copy_each(ours: Any, theirs: Any, pairs: dict[str, str]) -> None:
    for mine, yours in pairs.items():
        ours.get_submodule(mine).load_state_dict(theirs.get_submodule(yours).state_dict())


@pytest.mark.parametrize(("dims", "size"), [(3, (32, 32, 48)), (2, (64, 48))])
def test_unetr(dims: int, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = nets.UNETR(
        2, 3, size, feature_size=8, hidden_size=48, mlp_dim=64, num_heads=4, spatial_dims=dims
    ).eval()  # fmt: skip
    ours = build_network(
        "unetr", in_channels=2, out_channels=3, spatial_dims=dims, image_size=size, features=8, hidden_size=48,
        feed_forward_size=64, heads=4,
    ).eval()  # fmt: skip
    copy_each(
        ours, theirs, {"embedding": "vit.patch_embedding.patch_embeddings", "norm": "vit.norm", "head": "out.conv.conv"}
    )
    ours.positions.data.copy_(theirs.vit.patch_embedding.position_embeddings)
    for mine, yours in zip(ours.layers, theirs.vit.blocks, strict=True):
        copy_each(
            mine,
            yours,
            {
                "attention_norm": "norm1",
                "qkv": "attn.qkv",
                "project": "attn.out_proj",
                "feed_forward_norm": "norm2",
                "feed_forward.0": "mlp.linear1",
                "feed_forward.2": "mlp.linear2",
            },
        )
    copy_residual(ours.image_encoder, theirs.encoder1.layer)
    for mine, yours in zip(ours.state_encoders, (theirs.encoder2, theirs.encoder3, theirs.encoder4), strict=True):
        mine[0].load_state_dict(yours.transp_conv_init.conv.state_dict())
        for step, block in enumerate(yours.blocks):
            mine[1 + 2 * step].load_state_dict(block[0].conv.state_dict())
            copy_residual(mine[2 + 2 * step], block[1])
    for mine, yours in zip(
        ours.decoders, (theirs.decoder5, theirs.decoder4, theirs.decoder3, theirs.decoder2), strict=True
    ):
        copy_up(mine, yours)

    x = torch.randn(1, 2, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("dims", "size"), [(3, (64, 64, 64)), (2, (96, 64))])
def test_swin_unetr(dims: int, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = nets.SwinUNETR(2, 3, feature_size=12, spatial_dims=dims).eval()
    ours = build_network("swin_unetr", in_channels=2, out_channels=3, spatial_dims=dims, features=12).eval()
    swin = theirs.swinViT
    copy_each(ours, theirs, {"embedding": "swinViT.patch_embed.proj", "head": "out.conv.conv"})
    for mine, yours in zip(ours.stages, (swin.layers1, swin.layers2, swin.layers3), strict=True):
        copy_each(mine.merging, yours[0].downsample, {"norm": "norm", "reduction": "reduction"})
        for layer, block in zip(mine.layers, yours[0].blocks, strict=True):
            nn.init.normal_(block.attn.relative_position_bias_table)
            layer.attention.bias_table.data.copy_(block.attn.relative_position_bias_table)
            copy_each(
                layer,
                block,
                {
                    "attention_norm": "norm1",
                    "attention.qkv": "attn.qkv",
                    "attention.project": "attn.proj",
                    "feed_forward_norm": "norm2",
                    "feed_forward.0": "mlp.linear1",
                    "feed_forward.2": "mlp.linear2",
                },
            )
    copy_residual(ours.image_encoder, theirs.encoder1.layer)
    copy_residual(ours.state_encoders[0], theirs.encoder2.layer)
    copy_residual(ours.state_encoders[1], theirs.encoder3.layer)
    for mine, yours in zip(
        ours.decoders, (theirs.decoder4, theirs.decoder3, theirs.decoder2, theirs.decoder1), strict=True
    ):
        copy_up(mine, yours)

    x = torch.randn(1, 2, *size)
    with torch.no_grad():
        states = swin(x)
        state = ours.embedding(x).movedim(1, -1)
        for number, stage in enumerate([*ours.stages, None]):
            torch.testing.assert_close(normed(state), states[number], atol=1e-4, rtol=1e-4)
            state = stage(state) if stage is not None else state
        # MONAI's decoder from 1/16 on, with our bottleneck and the raw skip at 1/8.
        y = theirs.decoder4(ours.bottleneck(states[3]), states[2])
        y = theirs.decoder3(y, theirs.encoder3(states[1]))
        y = theirs.decoder2(y, theirs.encoder2(states[0]))
        expected = theirs.out(theirs.decoder1(y, theirs.encoder1(x)))
        torch.testing.assert_close(ours(x), expected, atol=1e-3, rtol=1e-3)
