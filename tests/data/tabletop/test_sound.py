"""The struck sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.tabletop.materials import MATERIALS
from data.tabletop.modes import modes_of
from data.tabletop.objects import draw_object
from data.tabletop.sound import (
    BALL_MASS,
    BALL_RADIUS,
    BALL_STIFFNESS,
    RATE,
    SLOWED,
    _half_sine_spectrum,
    _ring,
    contact_time,
    strike,
    write_sound,
)


def test_the_file_is_16_khz_mono_and_the_same_every_time(tmp_path: Path) -> None:
    """Equal objects give equal bytes of a 16-bit mono WAV file that does not clip."""
    spec = draw_object("wooden", "cone", index=0, seed=0)
    write_sound(spec, tmp_path / "a.wav")
    write_sound(spec, tmp_path / "b.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    samples, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == RATE == 16_000
    assert samples.ndim == 1
    assert 0.3 < np.abs(samples).max() < 0.99


def test_a_steel_ring_sounds_at_its_lowest_mode() -> None:
    """The strongest partial below 2 kHz lies at one of the frequencies that the vibration analysis gives."""
    spec = draw_object("steel", "torus", index=0, seed=0)
    speed = np.sqrt(spec.stuff.young * spec.stiffness_gain / (2 * (1 + spec.stuff.poisson)) / spec.density)
    expected = modes_of(spec, count=20).omega_K * speed / spec.radius / (2 * np.pi) / SLOWED
    tail = strike(spec)[RATE // 4 :]
    spectrum = np.abs(np.fft.rfft(tail * np.hanning(len(tail)), n=8 * len(tail)))
    frequency = np.fft.rfftfreq(8 * len(tail), 1 / RATE)
    peak = frequency[np.argmax(np.where(frequency < 2000, spectrum, 0))]
    assert np.abs(expected - peak).min() < 2.0


def test_materials_ring_in_the_order_of_their_damping() -> None:
    """The share of energy later than 50 ms after the blow: steel, then glass, then what is dull."""
    late = {}
    for material in MATERIALS:
        sounds = [strike(draw_object(material.name, "sphere", index=i, seed=0)) for i in range(2)]
        energies = [np.cumsum(sound[np.argmax(np.abs(sound)) :] ** 2) for sound in sounds]
        late[material.name] = np.mean([1 - float(energy[800] / energy[-1]) for energy in energies])
    assert late["steel"] > late["glass"] > max(late["stone"], late["wooden"])
    assert late["steel"] > 0.2
    assert max(late["rubber"], late["cork"]) < 0.1


@pytest.mark.parametrize("material", ["steel", "wooden", "rubber"])
def test_contact_time_is_that_of_hertz_law_integrated(material: str) -> None:
    """The closed form agrees with m a = -(4/3) E* √R δ^(3/2) followed step by step until the balls part."""
    spec = draw_object(material, "cube", index=0, seed=0)
    stuff = spec.stuff
    stiffness = 1 / (1 / BALL_STIFFNESS + (1 - stuff.poisson**2) / (stuff.young * spec.stiffness_gain))
    mass = 1 / (1 / BALL_MASS + 1 / spec.mass)
    spring = 4 / 3 * stiffness * np.sqrt(BALL_RADIUS)
    depth, speed, time = 0.0, 0.8, 0.0
    step = contact_time(spec, speed=0.8) / 20_000
    while depth >= 0:
        speed -= spring * max(depth, 0) ** 1.5 / mass * step  # symplectic Euler
        depth += speed * step
        time += step
    assert contact_time(spec, speed=0.8) == pytest.approx(time, rel=3e-3)


def test_half_sine_spectrum_is_the_fourier_integral() -> None:
    """The closed form agrees with the integral of the pulse, also where its own denominator is nought."""
    time = (np.arange(200_000) + 0.5) / 200_000
    pulse = np.sin(np.pi * time) * np.pi / 2 / len(time)
    for cycles in (0.0, 0.3, 0.5, 1.0, 2.2):
        integral = abs(np.sum(pulse * np.exp(-2j * np.pi * cycles * time)))
        assert _half_sine_spectrum(np.array([cycles]))[0] == pytest.approx(integral, abs=1e-6)


def test_the_factored_sum_of_partials_is_the_plain_sum() -> None:
    """Splitting the grid of times changes nothing but the time it takes."""
    rate = np.array([-3 + 800j, -40 + 9000j])
    time = np.arange(1000) / RATE
    plain = (np.array([1.0, -0.4])[:, None] * np.exp(rate[:, None] * time)).imag.sum(axis=0)
    np.testing.assert_allclose(_ring(np.array([1.0, -0.4]), rate, time), plain, atol=1e-12)
