"""SUV body weight from a PET DICOM series.

SUV = activity concentration (Bq/mL) * body weight (g) / dose left at the reference time (Bq), with
dose left = dose at injection * exp(-ln 2 * (reference time - injection time) / half-life).

The reference time is the one that the scanner decay-corrected the image to, DecayCorrection (0054,1102): START is the
series' start, ADMIN the injection itself. Source: the vendor-neutral calculation of the QIBA FDG-PET/CT profile, which
also covers Philips' counts and series whose SeriesTime is not the scan's. What the header leaves open is refused.
"""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, missing_dependency
from .image import dicom_series_files, read_image

TAGS = {
    "Modality": "(0008,0060)",
    "Units": "(0054,1001)",
    "SUVType": "(0054,1006)",
    "CorrectedImage": "(0028,0051)",
    "DecayCorrection": "(0054,1102)",
    "PatientWeight": "(0010,1030)",
    "SeriesDate": "(0008,0021)",
    "SeriesTime": "(0008,0031)",
    "AcquisitionDate": "(0008,0022)",
    "AcquisitionTime": "(0008,0032)",
    "TimezoneOffsetFromUTC": "(0008,0201)",
    "RadiopharmaceuticalInformationSequence": "(0054,0016)",
    "RadionuclideTotalDose": "(0018,1074)",
    "RadionuclideHalfLife": "(0018,1075)",
    "RadiopharmaceuticalStartTime": "(0018,1072)",
    "RadiopharmaceuticalStartDateTime": "(0018,1078)",
}
PHILIPS_SUV_FACTOR = (0x7053, 0x1000)
PHILIPS_ACTIVITY_FACTOR = (0x7053, 0x1009)

# A dose in Bq below this, or a weight in kg above, was written in another unit.
LEAST_DOSE_BQ = 1e4
GREATEST_WEIGHT_KG = 700.0
# Nobody scans later than this; clocks that differ, or an anonymiser that shifted one date of two, look like it.
MOST_HALF_LIVES = 10.0

WAY_OUT = "correct the header, or give the image in SUV, or pass --pet-units bqml with --suv-factor (SUV per Bq/mL)"


@dataclass(frozen=True, kw_only=True)
class SuvConversion:
    """``factor`` times a voxel's stored value (after its slice's slope) is its SUV; ``how`` says it for a report."""

    factor: float
    how: str


def read_suv(folder: str | Path) -> tuple[sitk.Image, str]:
    """The PET series of a folder as a float32 image of SUV body weight, and how SUV was obtained.

    Raises:
        InputError: no series, several, or one whose SUV cannot be computed.
        MissingDependencyError: pydicom is not installed.
    """
    image = read_image(folder)  # with the checks of a series: no slice missing, doubled or cut off
    conversion = suv_factor(dicom_series_files(Path(folder)))
    return sitk.Cast(image * conversion.factor, sitk.sitkFloat32), conversion.how


def suv_factor(files: Sequence[str | Path]) -> SuvConversion:
    """The factor from stored values to SUV body weight of one PET series, from the headers of all its slices.

    Raises:
        InputError: a tag is missing (named) or its value makes no sense, or units or decay correction leave SUV open.
        MissingDependencyError: pydicom is not installed.
    """
    headers = _read_headers(files)
    first = headers[0]
    modality = first.optional("Modality")
    if modality not in (None, "PT"):
        raise InputError(f"{first.series} has the modality {modality}, not PT: give the PET series for this channel.")
    units = str(first.required("Units")).upper()
    if units == "GML":
        kind = str(first.optional("SUVType") or "BW").upper()
        if kind != "BW":
            raise InputError(f"{first.series} holds SUV of the type {kind}, not body weight (BW): {WAY_OUT}.")
        return SuvConversion(factor=1.0, how="SUV body weight as stored in the DICOM series (units GML)")
    if units == "BQML":
        factor, how = _from_dose(headers)
        return SuvConversion(factor=factor, how=how)
    if units != "CNTS":
        raise InputError(f"{first.series} has {_named('Units')} = {units}, where BQML or GML is needed: {WAY_OUT}.")
    suv_per_count = first.private_number(PHILIPS_SUV_FACTOR)
    if suv_per_count:
        how = f"SUV body weight from DICOM: counts times the Philips SUV factor {suv_per_count:g}"
        return SuvConversion(factor=suv_per_count, how=how)
    activity_per_count = first.private_number(PHILIPS_ACTIVITY_FACTOR)
    if activity_per_count:
        factor, how = _from_dose(headers)
        how += f", counts times the Philips factor {activity_per_count:g} Bq/mL"
        return SuvConversion(factor=activity_per_count * factor, how=how)
    raise InputError(
        f"{first.series} is in counts ({_named('Units')} = CNTS) and has neither the Philips SUV factor (7053,1000) "
        f"nor the Bq/mL factor (7053,1009): {WAY_OUT}."
    )


def _from_dose(headers: list["_Header"]) -> tuple[float, str]:
    """SUV per Bq/mL from weight, dose and times, and the sentence that says so (no names, no dates)."""
    first = headers[0]
    corrections = first.optional("CorrectedImage")
    if corrections and "ATTN" not in ([corrections] if isinstance(corrections, str) else list(corrections)):
        raise InputError(
            f"{first.series} is not attenuation-corrected ({_named('CorrectedImage')} lacks ATTN): give one that is."
        )
    decay_correction = str(first.required("DecayCorrection")).upper()
    if decay_correction not in ("START", "ADMIN"):
        raise InputError(
            f"{first.series} has {_named('DecayCorrection')} = {decay_correction}, where START or ADMIN is needed: "
            f"{WAY_OUT}."
        )
    weight = first.positive("PatientWeight", "kg")
    if weight > GREATEST_WEIGHT_KG:
        raise InputError(
            f"{first.series} has {_named('PatientWeight')} = {weight:g}, which is no weight in kg: {WAY_OUT}."
        )
    items = first.required("RadiopharmaceuticalInformationSequence")
    if len(items) > 1:
        raise InputError(
            f"{first.series} lists {len(items)} radiopharmaceuticals, so its dose is not clear: {WAY_OUT}."
        )
    administration = _Header(items[0], first.series)
    dose = administration.positive("RadionuclideTotalDose", "Bq")
    if dose < LEAST_DOSE_BQ:
        raise InputError(
            f"{first.series} has {_named('RadionuclideTotalDose')} = {dose:g}, probably in MBq and not in Bq as DICOM "
            f"demands: {WAY_OUT}."
        )
    said = f"SUV body weight from DICOM: {weight:g} kg, {dose / 1e6:.4g} MBq"
    if decay_correction == "ADMIN":
        return weight * 1000 / dose, f"{said}, decay-corrected to the injection (ADMIN)"
    half_life = administration.positive("RadionuclideHalfLife", "s")
    reference, event = _reference_time(headers)
    injection = _injection_time(administration, first, reference, half_life)
    seconds = (reference - injection).total_seconds()
    if not 0 <= seconds <= MOST_HALF_LIVES * half_life:
        raise InputError(
            f"{first.series} says that it was {seconds / 60:.0f} min from the injection ({injection:%H:%M:%S}) to the "
            f"{event} ({reference:%H:%M:%S}), which a half-life of {half_life:g} s makes impossible: {WAY_OUT}."
        )
    left = dose * np.exp(-np.log(2) * seconds / half_life)
    how = (
        f"{said} injected at {injection:%H:%M:%S}, decay-corrected to the {event} at {reference:%H:%M:%S} "
        f"({seconds / 60:.1f} min later, half-life {half_life:g} s)"
    )
    return float(weight * 1000 / left), how


def _reference_time(headers: list["_Header"]) -> tuple[datetime.datetime, str]:
    """The series' start: SeriesDate and SeriesTime, or the earliest acquisition where that came before.

    A series written later from another one (a reformat, a resend) has a SeriesTime of its own, after its acquisition.
    """
    first = headers[0]
    series = datetime.datetime.combine(first.date("SeriesDate"), first.time("SeriesTime"))
    earliest = series
    for header in headers:
        if header.optional("AcquisitionTime") is None:
            continue
        time = header.time("AcquisitionTime")
        if header.optional("AcquisitionDate") is not None:
            days = [header.date("AcquisitionDate")]
        else:
            days = [series.date() + datetime.timedelta(days=day) for day in (-1, 0, 1)]
        # Without a date, the day that brings it nearest to the series: a scan may pass midnight.
        moments = [datetime.datetime.combine(day, time) for day in days]
        earliest = min(earliest, min(moments, key=lambda moment: abs(moment - series)))
    return earliest, "series start" if earliest == series else "first acquisition"


def _injection_time(
    administration: "_Header", header: "_Header", reference: datetime.datetime, half_life: float
) -> datetime.datetime:
    """RadiopharmaceuticalStartDateTime; without it, RadiopharmaceuticalStartTime on the last day before the scan."""
    if administration.optional("RadiopharmaceuticalStartDateTime") is not None:
        return administration.date_time(
            "RadiopharmaceuticalStartDateTime", zone=header.optional("TimezoneOffsetFromUTC")
        )
    time = administration.time("RadiopharmaceuticalStartTime")
    if half_life > 86400:
        raise InputError(
            f"{header.series} lacks {_named('RadiopharmaceuticalStartDateTime')}, and with a half-life of "
            f"{half_life / 3600:.0f} h the time of day alone leaves the day of the injection open: {WAY_OUT}."
        )
    injection = datetime.datetime.combine(reference.date(), time)
    return injection if injection <= reference else injection - datetime.timedelta(days=1)


def _read_headers(files: Sequence[str | Path]) -> list["_Header"]:
    try:
        import pydicom
    except ImportError as error:
        raise missing_dependency(
            "pydicom", extra="dicom", purpose="read weight, dose and times of a PET DICOM series"
        ) from error
    series = f"The PET series in {Path(files[0]).parent}"
    wanted: list[Any] = [*TAGS, PHILIPS_SUV_FACTOR, PHILIPS_ACTIVITY_FACTOR]
    headers = []
    for file in files:
        try:
            tags = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=wanted)
        except Exception as error:  # whatever pydicom raises for a damaged file
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{file} could not be read as DICOM ({reason}): export the series again.") from error
        headers.append(_Header(tags, series))
    return headers


class _Header:
    """The tags of one file, or of its radiopharmaceutical, with errors that name the tag."""

    def __init__(self, tags: Any, series: str) -> None:
        self._tags = tags
        self.series = series

    def optional(self, keyword: str) -> Any:
        """The value, or None where the tag is missing or empty."""
        try:
            value = self._tags.get(keyword)
            empty = (
                value is None or str(value).strip() == "" or (not isinstance(value, float | int) and len(value) == 0)
            )
        except (TypeError, ValueError) as error:
            raise self._malformed(keyword, str(error)) from error
        return None if empty else value

    def required(self, keyword: str) -> Any:
        """The value; an error that names the tag where it is missing or empty."""
        value = self.optional(keyword)
        if value is None:
            raise InputError(
                f"{self.series} lacks the DICOM tag {_named(keyword)}, without which SUV cannot be computed (an "
                f"anonymiser may have removed it): {WAY_OUT}."
            )
        return value

    def positive(self, keyword: str, unit: str) -> float:
        """A number above 0; scanners write 0 where nobody entered one."""
        value = self.required(keyword)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if not (number > 0 and np.isfinite(number)):
            raise self._malformed(keyword, f"{value} is no number of {unit} above 0")
        return number

    def private_number(self, tag: tuple[int, int]) -> float | None:
        """A private decimal, also where implicit transfer leaves its bytes; None where missing or not above 0."""
        if tag not in self._tags:
            return None
        value = self._tags[tag].value
        try:
            number = float(value.decode("ascii").strip("\0 ") if isinstance(value, bytes) else value)
        except (TypeError, ValueError):
            return None
        return number if number > 0 and np.isfinite(number) else None

    def date(self, keyword: str) -> datetime.date:
        """A DICOM date: YYYYMMDD, in old files YYYY.MM.DD."""
        text = str(self.required(keyword)).strip().replace(".", "")
        try:
            return datetime.datetime.strptime(text, "%Y%m%d").date()
        except ValueError as error:
            raise self._malformed(keyword, f"{text} is no date") from error

    def time(self, keyword: str) -> datetime.time:
        """A DICOM time: HHMM[SS[.FFFFFF]], in old files HH:MM:SS."""
        text = str(self.required(keyword)).strip()
        match = re.fullmatch(r"(\d\d):?(\d\d):?(\d\d)?(?:\.(\d{1,6}))?", text)
        try:
            if match is None:
                raise ValueError
            hour, minute, second, fraction = match.groups()
            # A leap second (60) is allowed in DICOM and not in Python.
            return datetime.time(
                int(hour), int(minute), min(59, int(second or 0)), int((fraction or "0").ljust(6, "0"))
            )
        except ValueError as error:
            raise self._malformed(keyword, f"{text} is no time of day") from error

    def date_time(self, keyword: str, *, zone: str | None) -> datetime.datetime:
        """A DICOM date and time, YYYYMMDDHHMM[SS[.FFFFFF]][+-ZZXX], in the series' zone (+-ZZXX) where it is known."""
        text = str(self.required(keyword)).strip()
        match = re.fullmatch(r"(\d{12}(?:\d\d)?)(?:\.(\d{1,6}))?([+-]\d{4})?", text)
        try:
            if match is None:
                raise ValueError
            moment = datetime.datetime.strptime(match[1].ljust(14, "0"), "%Y%m%d%H%M%S")
            moment += datetime.timedelta(microseconds=int((match[2] or "0").ljust(6, "0")))
            # Dates and times of the series carry no zone of their own: without (0008,0201) both are the scanner's.
            if match[3] and zone:
                moment += _offset(str(zone)) - _offset(match[3])
            return moment
        except ValueError as error:
            raise self._malformed(keyword, f"{text} is no date and time") from error

    def _malformed(self, keyword: str, reason: str) -> InputError:
        return InputError(f"{self.series} has a wrong {_named(keyword)}, {reason}: {WAY_OUT}.")


def _offset(zone: str) -> datetime.timedelta:
    """``+0130`` as an hour and a half."""
    zone = zone.strip()
    size = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
    return -size if zone.startswith("-") else size


def _named(keyword: str) -> str:
    return f"{keyword} {TAGS[keyword]}"
