"""`fastppo tokens`: a model that has learned a text, and the run in which PPO changes it."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fastppo import cgroups, checkpoint, machine, randomness, settings, streams
from fastppo.devices import check_backend, resolve_device
from fastppo.errors import UserError, why
from fastppo.kernels import api
from fastppo.revision import revision
from fastppo.run import loop
from fastppo.run.progress import make_progress
from fastppo.run.rundir import RunDir
from fastppo.signals import StopRequest
from fastppo.text import print_err, print_out
from fastppo.token_config import TokenConfig
from fastppo.tokens.args import TokenArgs
from fastppo.tokens.gpt import GPT
from fastppo.tokens.model import LanguageModel
from fastppo.tokens.pretrain import pretrain
from fastppo.tokens.samples import Samples
from fastppo.tokens.tasks import Task, make_task, text_of
from fastppo.tokens.trainer import TokenTrainer
from fastppo.tokens.vocabulary import Characters, Vocabulary
from fastppo.tracking import trackers as tracking
from fastppo.waiting import waiting

REFERENCE = "reference"
"""Name of the checkpoint that holds the model as it was when PPO began."""
OPERATIONS = ("gae", "loss.tokens", "act", "adam", "token_log_probs")
SAY_EVERY_S = 5.0
"""Between two lines on how the text is learned."""


def run(args: TokenArgs) -> int:
    """Runs `fastppo tokens`.

    Raises:
        UserError, MachineError, Diverged, Interrupted
    """
    if args.resume is not None:
        resume(args.resume, quiet=args.quiet)
        return 0
    # a run may be resumed from another folder
    args = replace(args, model=_absolute(args.model), text=_absolute(args.text))
    config = settings.checked(args, TokenConfig)
    return loop.begin(args, config, lambda: start(config, args.run_dir, quiet=args.quiet))


def start(config: TokenConfig, run_dir: Path | None, *, quiet: bool) -> Path:
    """Learns the text, then trains into a new run directory, which it returns.

    Raises:
        UserError, MachineError, Diverged, Interrupted
    """
    tracking.check(config)
    stop = StopRequest()
    with stop:
        # built first: a config that cannot run, or a signal meanwhile, leaves no folder behind
        made = Made(config)
        made.learn_text(stop, quiet=quiet)
        trainer = made.trainer(stop)
        record = made.record()
        run = RunDir.create(run_dir, config, record)
        _save_first(run, trainer)
        tracker = tracking.make_tracker(config, run.path, record)
        _train(trainer, run, tracker, stop, quiet=quiet)
    return run.path


def resume(run_dir: Path, *, quiet: bool) -> Path:
    """Goes on from a run's newest checkpoint, or begins where a run ended before its first.

    Raises:
        UserError, MachineError, Diverged, Interrupted
    """
    run = RunDir.open(run_dir)
    config = run.read_config_of(TokenConfig, "tokens")
    state = run.load()
    if state is None:
        print_err(f"{run_dir} has no checkpoint yet: from the beginning")
    else:
        checkpoint.check_run(state, config.to_dict())
    if state is not None and state["update"] >= config.num_updates:
        print_out(
            f"{run_dir} is complete: {state['update']} updates, {state['global_step']} tokens"
        )
        return run_dir
    tracking.check(config)
    stop = StopRequest()
    with stop:
        made = Made(config)
        made.check_same(run.read_record())
        run.resume(0 if state is None else state["update"])
        if state is None:
            made.learn_text(stop, quiet=quiet)
            trainer = made.trainer(stop)
            _save_first(run, trainer)
        else:
            reference = checkpoint.load(run.checkpoints / f"{REFERENCE}.pt")["policy"]
            trainer = made.trainer(stop, state=state, reference=reference)
        tracker = tracking.make_tracker(
            config,
            run.path,
            made.record(),
            after_update=trainer.update,
            after_step=trainer.global_step,
        )
        _train(trainer, run, tracker, stop, quiet=quiet)
    return run_dir


class Made:
    """What a run begins with: text, vocabulary, task and model."""

    def __init__(self, config: TokenConfig) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        self.backend = check_backend(config, self.device)
        self.threads = config.torch_threads or cgroups.available_cores()
        torch.set_num_threads(self.threads)
        with waiting("compiling kernels, making the model"):
            api.warmup(self.device, config.backend, OPERATIONS)
            self.text = text_of(config) if config.text is None else _read_text(config.text)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(randomness.init_seed(config.seed))
                self.model, self.vocabulary, self.task = _make(config, self.text)
            self.model.to(self.device)

    def learn_text(self, stop: StopRequest, *, quiet: bool) -> None:
        """Trains the GPT on the text; a model from a folder stays as it is."""
        if isinstance(self.model, GPT) and isinstance(self.vocabulary, Characters):
            pretrain(
                self.model,
                self.text,
                self.vocabulary,
                self.config,
                by_line=self.task.ends,
                each_step=_saying(self.config.pretrain_steps, stop, quiet=quiet),
            )

    def trainer(
        self,
        stop: StopRequest,
        *,
        state: dict[str, Any] | None = None,
        reference: dict[str, Any] | None = None,
    ) -> TokenTrainer:
        """The trainer; errors as its own."""
        return TokenTrainer(
            self.config,
            self.model,
            self.vocabulary,
            self.task,
            state=state,
            reference=reference,
            check_stop=stop.check,
        )

    def record(self) -> dict[str, Any]:
        """When the run began, of which code, and what it runs on."""
        return machine.record() | {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": revision(),
            "backend": self.backend,
            "device": str(self.device),
            "threads": {"torch": self.threads},
            "tokens": {
                "parameters": sum(one.numel() for one in self.model.parameters()),
                "vocabulary": len(self.vocabulary),
                "text_sha256": self._text_sha256(),
            },
        }

    def check_same(self, record: dict[str, Any]) -> None:
        """Refuses to go on with another text than the run began with."""
        known = record.get("tokens")
        if not isinstance(known, dict) or known.get("text_sha256") != self._text_sha256():
            source = self.config.text or "the grammar of this version"
            raise UserError(
                f"text: {source} is not what the run learned from; restore it, or train anew"
            )

    def _text_sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def _make(config: TokenConfig, text: str) -> tuple[LanguageModel, Vocabulary, Task]:
    """The model, its vocabulary and the task."""
    model: LanguageModel
    vocabulary: Vocabulary
    if config.model is not None:
        from fastppo.tokens.hugging_face import load  # only who has such a model has transformers

        model, vocabulary = load(config.model)
    else:
        vocabulary = Characters(text)
        sizes = dict(layers=config.layers, width=config.width, heads=config.heads)
        model = GPT(len(vocabulary), context=config.context, **sizes)
    task = make_task(config, text, len(vocabulary))
    prompts = [vocabulary.encode(task.prompt(number)) for number in range(config.num_envs)]
    longest = max(map(len, prompts))
    if model.context is not None and longest + config.num_steps > model.context:
        raise UserError(
            f"num_steps: {config.num_steps} behind prompts of {longest} tokens do not fit into the "
            f"model's context of {model.context}; lower num_steps or take a longer context"
        )
    return model, vocabulary, task


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _read_text(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"text: {path} cannot be read ({why(error)}); name another") from None
    except UnicodeDecodeError as error:
        raise UserError(f"text: {path} is no UTF-8 text ({error.reason}); convert it") from None
    if not text.strip():
        raise UserError(f"text: {path} is empty; name another")
    return text


def _saying(steps: int, stop: StopRequest, *, quiet: bool) -> Callable[[int, float], None]:
    """Says now and then how far the text is learned."""
    said = time.perf_counter()

    def each_step(step: int, loss: float) -> None:
        nonlocal said
        stop.check()
        now = time.perf_counter()
        if not quiet and (step == steps or now - said >= SAY_EVERY_S):
            said = now
            print_out(f"learning the text: step {step}/{steps}  {loss:.3f} nats a character")

    return each_step


def _save_first(run: RunDir, trainer: TokenTrainer) -> None:
    state = trainer.state()
    # before the other: a run with a checkpoint has a reference
    checkpoint.save(run.checkpoints / f"{REFERENCE}.pt", state)
    run.save(0, state, trainer.config.keep_checkpoints)


def _train(
    trainer: TokenTrainer,
    run: RunDir,
    tracker: tracking.Tracker,
    stop: StopRequest,
    *,
    quiet: bool,
) -> None:
    samples = Samples(run, trainer.config, quiet=quiet)
    with streams.guarded():
        loop.run(
            trainer,
            run,
            tracker,
            stop,
            make_progress(trainer.config, quiet=quiet),
            after_logged=lambda metrics: samples.keep(metrics["update"], trainer.samples),
        )
        if not quiet:
            print_out(f"done: {trainer.global_step} tokens in {run.path}")
            loop.say_next(trainer.config, run, evaluates=False)
