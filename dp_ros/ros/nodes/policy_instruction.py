"""Instruction of a policy node: the sentence in force, from the parameter `instruction` or the topic
`policy/instruction`; the newer one counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.exceptions import InvalidHandle
from rclpy.parameter import Parameter
from std_msgs.msg import String

from dp_ros.policy.checkpoint_config import instructions_of
from dp_ros.policy.instructions import Instructions, Meaning
from dp_ros.policy.sentence_match import STOPS
from dp_ros.ros.node import qos
from dp_ros.ros.node.managed_node import ManagedNode
from dp_ros.schema import ConfigError, InstructionError, plain

NONE = "no instruction: publish a sentence on policy/instruction, or set the parameter instruction"
Tell = Callable[[NDArray[np.float32] | None], None]


class InstructionInput:
    """Sentences in, embeddings out.

    A sentence that the model knows takes effect at once. Another one is encoded in a thread, which takes up to a second
    the first time; meanwhile there is no instruction, so the arm holds. In lockstep the callback encodes it, because
    the robot waits for the command.
    """

    def __init__(
        self,
        known: Instructions,
        tell: Tell,
        waits: bool,
        subscription: Callable[..., Any],
        guard: Any,
        logger: Any,
    ) -> None:
        """tell: gets the embedding (D,) in force, or None. waits: encode in the caller's thread.

        `subscription(kind, topic, callback, qos)` and `guard(callback)` make a subscription and a guard condition.
        """
        self._known, self._tell, self._waits, self._logger = known, tell, waits, logger
        self.text = ""  # the sentence in force; empty: none
        self.means = ""  # the known sentence that it is taken for
        self.problem = NONE  # why there is none
        self._wanted = ""  # the newest sentence, which may still be being encoded
        self._message: str | None = None  # the same as it was heard, where it came on the topic
        self._refused: str | None = None  # the newest message, where it could not be used
        self._encoded: dict[str, Meaning | InstructionError] = {}
        self._done = guard(self._on_encoded)
        subscription(String, "policy/instruction", self._on_message, qos.LATCHED)
        subscription(String, "policy/instruction", self._on_message, qos.RELIABLE)  # if it is not latched

    @classmethod
    def of(
        cls, node: ManagedNode, checkpoint: str, sentence: str, tell: Tell, waits: bool
    ) -> InstructionInput | None:
        """The input of `node`, which begins with `sentence`; None for a policy that does one thing. UserError."""
        known = instructions_of(checkpoint)
        made = None
        if known is not None:
            make = node.add_subscription, node.add_guard_condition, node.get_logger()
            made = cls(known, tell, waits, *make)
        say(made, sentence, checkpoint)
        return made

    def say(self, sentence: str, message: str | None = None) -> None:
        """The sentence from now on; empty, or one of STOPS: none. InstructionError, which changes nothing.

        message: the same, where it came on the topic.
        """
        text = plain(sentence) if sentence.strip() else ""
        if text in STOPS and not self._known.knows(text):
            text = ""
        self._refused = None
        if text == self._wanted and text:
            return
        if text and not self._known.knows(text) and not self._waits:
            self._known.check_encoder(text)
            self._wanted, self._message = text, message
            self._stop(f"'{text}' is being encoded")
            threading.Thread(target=self._encode, args=(text,), daemon=True).start()
            return
        meaning = self._known.meaning(text) if text else None
        self._wanted = text
        self._take(meaning)

    def _on_message(self, msg: String) -> None:
        """Take a sentence from the topic. One that cannot be used clears the instruction, so that the arm holds."""
        if msg.data == self._refused:  # both subscriptions hear a latched publisher
            return
        try:
            self.say(msg.data, msg.data)
        except InstructionError as error:
            self._refuse(error, msg.data)

    def _refuse(self, error: InstructionError, message: str | None) -> None:
        self._wanted, self._refused = "", message
        self._stop(f"{'instruction' if message is None else 'policy/instruction'}: {error}")
        self._logger.error(self.problem)

    def _encode(self, text: str) -> None:
        try:
            self._encoded[text] = self._known.meaning(text)
        except InstructionError as error:
            self._encoded[text] = error
        except Exception as error:  # of a library: the arm holds, and the sentence may be said again
            self._encoded[text] = InstructionError(
                f"'{text}' cannot be encoded: {type(error).__name__}: {error}"
            )
        with suppress(InvalidHandle):  # the node may be released meanwhile
            self._done.trigger()

    def _on_encoded(self) -> None:
        result = self._encoded.pop(self._wanted, None)
        if result is None:
            return
        if isinstance(result, InstructionError):
            self._refuse(result, self._message)
        else:
            self._take(result)

    def _take(self, meaning: Meaning | None) -> None:
        if meaning is None:
            if self.text:
                self._logger.info("no instruction: holding")
            self._stop(NONE)
            return
        self.text, self.means, self.problem = self._wanted, meaning.text, ""
        self._tell(meaning.embedding)
        taken = "" if meaning.text == self.text else f" is taken for '{meaning.text}'"
        self._logger.info(f"instruction: '{self.text}'{taken}, {meaning.task}")

    def _stop(self, problem: str) -> None:
        self.text = self.means = ""
        self.problem = problem
        self._tell(None)


def say(source: InstructionInput | None, sentence: str, checkpoint: str) -> None:
    """`InstructionInput.say`; ConfigError where a policy that does one thing is told a sentence."""
    if source is not None:
        source.say(sentence)
    elif sentence:
        raise ConfigError(f"instruction: {checkpoint} does one thing and takes no instruction: leave it out")


def sentence_in(parameters: Iterable[Parameter]) -> str | None:
    """The value of the parameter `instruction` among those; None where it is not."""
    return next((str(each.value) for each in parameters if each.name == "instruction"), None)
