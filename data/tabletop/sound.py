"""The sound of an object that is struck once with a small steel ball.

Modal synthesis: every vibration of the free solid (`data.tabletop.modes`) rings as a decaying sinusoid.
- Its decay is that of a material with constant loss factor, exp(-π f tan φ t): Klatzky, Pai, Krotkov (2000).
- Its strength is its displacement where it is struck times its displacement where it is heard: J.-M. Adrien,
  "The missing link: modal synthesis" (1991); K. van den Doel, D. K. Pai, "The sounds of physical objects"
  (Presence 7, 1998), eq. 5. Sound pressure is proportional to the surface's acceleration.
- The blow is a half sine as long as two elastic balls stay in contact (H. Hertz 1881; K. L. Johnson, "Contact
  Mechanics", 1985, §11.4): T = 2.87 (m² / (R E*² v))^(1/5). Soft materials hold the ball longer, which takes
  the brightness away.

Solids as small as these ring at 10–80 kHz where they are hard. So the recording is slowed down tenfold, as
bat recordings are ("time expansion"): what is heard is the true sound, ten times lower and longer.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from data.tabletop.modes import modes_of
from data.tabletop.objects import ObjectSpec, random_of
from data.tabletop.shapes import mesh_of, normals_at

RATE = 16_000  # Hz, of the file
SLOWED = 10.0  # time expansion
SECONDS = 1.0  # of the file
MODES = 100
BALL_RADIUS = 0.002  # m, the steel ball that strikes
BALL_MASS = 4 / 3 * np.pi * BALL_RADIUS**3 * 7850
BALL_STIFFNESS = 200e9 / (1 - 0.29**2)  # Pa, E / (1 - ν²)

F64 = NDArray[np.float64]


def write_sound(spec: ObjectSpec, path: Path) -> None:
    """Write the sound of an object as a mono 16-bit WAV file."""
    wav = io.BytesIO()  # libsndfile reports a full disk less clearly than Python does
    soundfile.write(wav, strike(spec), RATE, subtype="PCM_16", format="WAV")
    path.write_bytes(wav.getvalue())


def strike(spec: ObjectSpec) -> NDArray[np.float32]:
    """The recording [T] in [-1, 1]: a short silence, the blow, and the ringing, with the room's noise."""
    rng = random_of(spec, "sound")
    modes = modes_of(spec, count=MODES)
    points_23, normals_23 = _surface_points(spec, rng)
    moved_K23 = modes.displacement(points_23 / spec.radius)
    strength_K = np.prod(np.einsum("knd,nd->kn", moved_K23, normals_23), axis=1)

    # From here on in the time of the file, in which every frequency is SLOWED times lower.
    speed = spec.stuff.shear_speed * np.sqrt(spec.stiffness_gain / spec.density_gain)
    frequency_K = modes.omega_K * speed / spec.radius / (2 * np.pi) / SLOWED
    contact = contact_time(spec, speed=float(rng.uniform(0.4, 1.2))) * SLOWED
    strength_K = strength_K * frequency_K * _half_sine_spectrum(frequency_K * contact)
    heard = frequency_K < 0.48 * RATE  # the recorder's low-pass filter
    strength_K, frequency_K = strength_K[heard], frequency_K[heard]

    start = int(rng.uniform(0.03, 0.08) * RATE)
    sound_T = np.zeros(int(SECONDS * RATE))
    time_T = np.arange(len(sound_T) - start) / RATE
    rate_K = (2j - spec.stuff.loss * spec.loss_gain) * np.pi * frequency_K  # complex: turn and decay
    sound_T[start:] = _ring(strength_K, rate_K, time_T)
    # The ball and the object are also pushed as a whole (their "acceleration noise": Koss, Alfredson,
    # "Transient sound radiated by spheres undergoing an elastic collision", J. Sound Vib. 27, 1973): a click
    # with the shape of the blow's own slope.
    during = time_T < contact
    click = np.where(during, np.cos(np.pi * time_T / contact), 0.0)
    sound_T[start:] += 0.15 * np.abs(sound_T).max() * click
    sound_T *= rng.uniform(0.35, 0.9) / np.abs(sound_T).max()
    noise = 10 ** (rng.uniform(-62, -50) / 20)
    return np.clip(sound_T + noise * rng.standard_normal(len(sound_T)), -1, 1).astype(np.float32)


def contact_time(spec: ObjectSpec, *, speed: float) -> float:
    """Seconds that the ball, coming with `speed` m/s, touches the object: Hertz' law (see above)."""
    material = spec.stuff
    stiffness = 1 / (1 / BALL_STIFFNESS + (1 - material.poisson**2) / (material.young * spec.stiffness_gain))
    mass = 1 / (1 / BALL_MASS + 1 / spec.mass)
    return float(2.87 * (mass**2 / (BALL_RADIUS * stiffness**2 * speed)) ** 0.2)


def _half_sine_spectrum(cycles_K: F64) -> F64:
    """Spectrum of a half sine of length T at f = cycles / T, 1 at f = 0: |cos πfT / (1 - 4f²T²)|."""
    below = np.abs(1 - 4 * cycles_K**2)
    return np.where(below < 1e-6, np.pi / 4, np.abs(np.cos(np.pi * cycles_K)) / np.maximum(below, 1e-6))


def _ring(strength_K: F64, rate_K: NDArray[np.complex128], time_T: F64) -> F64:
    """Σ strength · Im exp(rate · t) on an even grid of times.

    A grid of times factors, exp(r (t₁ + t₂)) = exp(r t₁) exp(r t₂), which saves nearly all the exponentials.
    """
    block = 256
    step = time_T[1] - time_T[0]
    fine = np.exp(rate_K[:, None] * (np.arange(block) * step))
    coarse = strength_K[:, None] * np.exp(
        rate_K[:, None] * (np.arange(-(-len(time_T) // block)) * block * step)
    )
    ringing: F64 = (coarse.T @ fine).imag.reshape(-1)[: len(time_T)]
    return ringing


def _surface_points(spec: ObjectSpec, rng: np.random.Generator) -> tuple[F64, F64]:
    """Two random points of the surface, with normals: where it is struck and where it is listened to."""
    mesh = mesh_of(spec)
    faces = rng.choice(len(mesh.faces), size=2, p=mesh.area_faces / mesh.area)
    points_23 = np.einsum("nc,ncd->nd", rng.dirichlet((1, 1, 1), size=2), mesh.triangles[faces])
    return points_23, normals_at(spec, points_23.astype(np.float32)).astype(np.float64)
