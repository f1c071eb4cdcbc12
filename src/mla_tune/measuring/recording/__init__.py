"""Recordings: every sample of a run in a file, and a bench that plays them back, noise included."""

__all__ = ["RecordedBench", "Recorder", "Recording", "RecordingFile", "Rounds", "Track"]

from mla_tune.measuring.recording.content import Recording, Track
from mla_tune.measuring.recording.file import RecordingFile
from mla_tune.measuring.recording.playback import RecordedBench
from mla_tune.measuring.recording.recorder import Recorder
from mla_tune.measuring.recording.rounds import Rounds
