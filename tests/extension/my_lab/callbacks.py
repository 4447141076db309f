"""A callback: Lightning's own interface."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback


class EpochDiary(Callback):
    """Notes every epoch that ends, in a file; what is noted survives a resume.

    Args:
        file: where.
    """

    def __init__(self, file: str) -> None:
        self.file, self.epochs = Path(file), 0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note it."""
        self.epochs += 1
        with self.file.open("a", encoding="utf-8") as diary:
            diary.write(f"epoch {trainer.current_epoch}, {self.epochs} in all\n")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.epochs = state_dict["epochs"]
