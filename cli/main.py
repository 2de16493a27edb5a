"""Commands and options; heavy libraries are imported by the command that needs them, so that help answers at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lifecycle.errors import ConfigError, ProDecksError, was_interrupted
from lifecycle.redaction import redacted

PIPELINES = {
    "train": ("as-of", "trials", "seed"),
    "deploy": ("version", "strategy", "environment"),
    "evaluate": ("version", "data", "from", "to", "environment"),
    "monitor": ("window", "as-of", "gateway", "environment"),
}
"""Pipeline: the options that are its own."""
INTERRUPTED = 130
CUT_SHORT = "interrupted; run the same command to go on where it stopped"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Machine-learning models in production, from one file each.",
)
models = typer.Typer(
    help="List the models; [bold]check[/bold] validates their files, [bold]versions[/bold] shows what was registered.",
    invoke_without_command=True,
)
stacks = typer.Typer(help="Where pipelines run: list, show, apply.", no_args_is_help=True)
runs = typer.Typer(help="What ran, and how it ended; [bold]show[/bold] tells one run.", invoke_without_command=True)
rollout = typer.Typer(
    help="A version's way to its users: status, history, approve, refuse, pause, resume, promote, rollback.",
    no_args_is_help=True,
)
alerts = typer.Typer(
    help="What is wrong, who was told: list, show, ack, resolve, silence, incidents, check, tick.", no_args_is_help=True
)
keys = typer.Typer(help="API keys of the gateway: add, list, remove.", no_args_is_help=True)
predictions = typer.Typer(help="The archive of predictions and outcomes: compact, list.", no_args_is_help=True)
override = typer.Typer(help="Let a failed gate pass, on record: who, why, until when.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(stacks, name="stacks")
app.add_typer(runs, name="runs")
app.add_typer(override, name="override")
app.add_typer(rollout, name="rollout")
app.add_typer(keys, name="keys")
app.add_typer(predictions, name="predictions")
app.add_typer(alerts, name="alerts")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for scripts.")]
StackOption = Annotated[str, typer.Option("--stack", help="Stack file: where it runs.")]
EnvironmentOption = Annotated[
    str | None, typer.Option("--environment", help="Whose users it is about; default: the stack's environment.")
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    pipeline: Annotated[str | None, typer.Option("--pipeline", help=f"What to run: {', '.join(PIPELINES)}.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Model to run it for, or all; monitor's default is all.")
    ] = None,
    stack: StackOption = "local",
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Moment to look back from, ISO 8601; default: now.")
    ] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Hyper-parameter trials.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of every random choice.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why it is run by hand; kept on record.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who asks; default: the user of this machine.")] = "",
    version: Annotated[
        str | None,
        typer.Option("--version", help="Version to deploy (default: the newest approved) or evaluate (default: live)."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="canary, blue_green or shadow; default: the model file's.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Snapshot to evaluate on, by name.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First moment to evaluate on; default: the end of its training window.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Moment to evaluate up to; default: now.")] = None,
    window: Annotated[
        str | None, typer.Option("--window", help="Time to monitor, as in 7d; default: the model file's.")
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            "--gateway",
            help="Where to ask for its CPU and memory, by default the environment's port here; its key in PRODECKS_GATEWAY_KEY.",
        ),
    ] = None,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline: [bold]python run.py --pipeline train[/bold] trains the default model on the shipped data."""
    if context.invoked_subcommand is not None:
        if pipeline is not None:
            raise ConfigError(f"--pipeline {pipeline} and {context.invoked_subcommand} together; accepted: one of them")
        return
    if pipeline is None:
        sys.stdout.write(context.get_help() + "\n")
        return
    from adapters.model_files import nearest

    if pipeline not in PIPELINES:
        raise ConfigError(f"unknown pipeline {pipeline!r}; {nearest(pipeline, list(PIPELINES))}")
    given = {"as-of": as_of, "trials": trials, "seed": seed, "version": version, "strategy": strategy}
    given |= {"data": data, "from": start, "to": end, "environment": environment, "window": window, "gateway": gateway}
    for option, value in given.items():
        if value is not None and option not in PIPELINES[pipeline]:
            accepted = ", ".join(f"--{name}" for name in PIPELINES[pipeline])
            raise ConfigError(f"--{option} does not belong to --pipeline {pipeline}; accepted: {accepted}")
    if pipeline not in ("train", "monitor") and len(model or []) > 1:
        raise ConfigError(f"--pipeline {pipeline} for {len(model or [])} models; accepted: one at a time")
    # ZenML keeps the parameters of every run.
    reason, by = redacted(reason or "run by hand"), redacted(by or _user())
    if pipeline == "evaluate":
        from cli.evaluation import EvaluateRequest, run_evaluation

        asked = EvaluateRequest(
            (model or ["flight_delay"])[0], stack, environment, version, data, start, end, reason, by
        )
        raise typer.Exit(run_evaluation(asked, as_json=as_json))
    if pipeline == "monitor":
        from cli.monitoring import MonitorRequest, run_monitoring

        wanted = MonitorRequest(model or ["all"], stack, environment, window, as_of, gateway, reason, by)
        raise typer.Exit(run_monitoring(wanted, as_json=as_json))
    if pipeline == "deploy":
        from cli.deployment import DeployRequest, run_deployment

        chosen = DeployRequest((model or ["flight_delay"])[0], stack, environment, version, strategy, reason, by)
        raise typer.Exit(run_deployment(chosen, as_json=as_json))
    from cli.training import TrainRequest, run_training

    request = TrainRequest(
        models=model or ["flight_delay"],
        stack=stack,
        as_of=as_of,
        trials=trials,
        seed=seed,
        reason=reason,
        requested_by=by,
    )
    raise typer.Exit(run_training(request, as_json=as_json))


@models.callback()
def models_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models: owner, tier, sensitivity, schedule, source, gates."""
    if context.invoked_subcommand is None:
        from cli.models import list_models

        list_models(as_json=as_json)


@models.command("check")
def models_check(as_json: JsonOption = False) -> None:
    """Validate every model file: all errors at once, each with file, line, key and what is accepted."""
    from cli.models import check

    raise typer.Exit(check(as_json=as_json))


@models.command("versions")
def models_versions(model: str, stack: StackOption = "local", as_json: JsonOption = False) -> None:
    """List a model's registered versions and what was decided about each."""
    from cli.models import versions

    versions(model, stack, as_json=as_json)


@app.command("new-model")
def new_model(
    name: str,
    table: Annotated[str, typer.Option("--table", help="Table of the source.")],
    label: Annotated[str, typer.Option("--label", help="Column to predict.")],
    timestamp: Annotated[str | None, typer.Option("--timestamp", help="When the prediction is due.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="Unique key of a row.")] = None,
    stack: StackOption = "local",
) -> None:
    """Draft a model file from a table: types, ranges, suspected leaks and identifiers."""
    from cli.models import draft

    draft(name, table, label, timestamp, entity, stack)


@app.command("prove-gates")
def prove_gates(
    model: Annotated[list[str] | None, typer.Option("--model", help="Model; default: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show each gate of a model firing and not firing on data made for it; fail if one cannot fire."""
    from cli.models import prove

    raise typer.Exit(prove(model or ["all"], as_json=as_json))


@override.command("grant")
def override_grant(
    model: str,
    gate: Annotated[str, typer.Option("--gate", help="Name of the gate, as the gate table shows it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it may pass.")],
    until: Annotated[str, typer.Option("--until", help="Last day it holds, ISO 8601.")],
    by: Annotated[str, typer.Option("--by", help="The person who answers for it.")],
    stack: StackOption = "local",
) -> None:
    """Let one failed gate of one model pass until a day; the finding stays visible."""
    from cli.records import grant

    grant(model, gate, by, reason, until, stack)


@override.command("list")
def override_list(model: str, stack: StackOption = "local", as_json: JsonOption = False) -> None:
    """List the overrides ever granted for a model."""
    from cli.records import list_overrides

    list_overrides(model, stack, as_json=as_json)


@runs.callback()
def runs_list(
    context: typer.Context,
    model: Annotated[str | None, typer.Option("--model", help="Only this model's.")] = None,
    stack: StackOption = "local",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Newest so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the newest runs."""
    if context.invoked_subcommand is None:
        from cli.records import list_runs

        list_runs(model, stack, limit, as_json=as_json)


@runs.command("show")
def runs_show(run: str, stack: StackOption = "local", as_json: JsonOption = False) -> None:
    """Tell one run: what asked for it, its findings, how it ended."""
    from cli.records import show_run

    show_run(run, stack, as_json=as_json)


@stacks.command("list")
def stacks_list(as_json: JsonOption = False) -> None:
    """List the stack files."""
    from cli.stacks import list_stacks

    list_stacks(as_json=as_json)


@stacks.command("show")
def stacks_show(name: str, as_json: JsonOption = False) -> None:
    """Show a stack as it would be applied, passwords left out."""
    from cli.stacks import show

    show(name, as_json=as_json)


@stacks.command("apply")
def stacks_apply(name: str) -> None:
    """Make ZenML agree with a stack file, and say what changed."""
    from cli.stacks import apply

    apply(name)


@app.command("serve")
def serve(
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on; without keys only a loopback one.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="Port; 0 takes a free one; default: the environment's."),
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests a second of one client.")] = None,
    burst: Annotated[
        int | None, typer.Option("--burst", min=1, help="Requests one client may make at once under --rate.")
    ] = None,
    fsync: Annotated[
        str | None,
        typer.Option(
            "--fsync", help="When a prediction counts as kept: every_group (survives loss of power), interval, never."
        ),
    ] = None,
    answer_unrecorded: Annotated[
        bool | None,
        typer.Option(
            "--answer-unrecorded/--refuse-unrecorded",
            help="While the log's disk is full, answer instead of refusing with 503.",
        ),
    ] = None,
    tf_serving: Annotated[
        str | None,
        typer.Option("--tf-serving", help="HOST:PORT of TensorFlow Serving that scores; default: this process does."),
    ] = None,
    deadline: Annotated[
        float, typer.Option("--deadline", help="Seconds TensorFlow Serving may take for one answer, retries included.")
    ] = 1.0,
    stack: StackOption = "local",
    environment: EnvironmentOption = None,
) -> None:
    """Serve every deployed model, each prediction on record before its answer leaves, until Ctrl-C.

    What is not said here stands in [bold]configs/policies/serving.yaml[/bold].
    """
    from cli.serve import serve as run
    from cli.workspace import serving_environment

    where = serving_environment(stack, environment)
    raise typer.Exit(run(where, host, port, rate, burst, answer_unrecorded, fsync, tf_serving, deadline))


@predictions.command("compact")
def predictions_compact(
    stack: StackOption = "local", environment: EnvironmentOption = None, as_json: JsonOption = False
) -> None:
    """Move finished segments of the prediction log into the archive, and delete the days no model file keeps."""
    from cli.predictions import compact

    compact(stack, environment, as_json=as_json)


@predictions.command("list")
def predictions_list(
    model: Annotated[str | None, typer.Option("--model", help="Only this model's.")] = None,
    stack: StackOption = "local",
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what the archive holds by model and day."""
    from cli.predictions import list_holdings
    from cli.workspace import serving_environment

    list_holdings(model, serving_environment(stack, environment), as_json=as_json)


@app.command("operate")
def operate(
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end, for a scheduler.")] = False,
    gateway: Annotated[
        str | None,
        typer.Option(
            "--gateway",
            help="Where changes are read back, by default the environment's port here; its key in PRODECKS_GATEWAY_KEY.",
        ),
    ] = None,
    tf_serving: Annotated[
        str | None,
        typer.Option(
            "--tf-serving", help="HOST:PORT of TensorFlow Serving, whose versions and labels follow the routing tables."
        ),
    ] = None,
    tf_serving_models: Annotated[
        Path | None, typer.Option("--tf-serving-models", help="Folder it reads versions from; the same path here.")
    ] = None,
    stack: StackOption = "local",
    environment: EnvironmentOption = None,
) -> None:
    """Judge every rollout by what the prediction log says, move its traffic, and take it back when it is bad.

    Beside it, alerts are opened, escalated and told every ten seconds, as by alerts tick.
    With --once, the exit code is 7 when a P0 alert reached nobody.
    """
    from cli.operate import operate as run

    raise typer.Exit(run(stack, environment, every, once, gateway, tf_serving, tf_serving_models))


@app.command("traffic")
def traffic(
    model: str,
    gateway: Annotated[
        str | None,
        typer.Option(
            "--gateway",
            help="Where to send it, by default the environment's port here; its key in PRODECKS_CLIENT_KEY.",
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First moment of the window; default: a monitoring window before --to.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Moment after the window; default: now.")] = None,
    rate: Annotated[float, typer.Option("--rate", help="Requests a second.")] = 50.0,
    most: Annotated[int | None, typer.Option("--most", min=1, help="Send so many rows at the most.")] = None,
    outcomes: Annotated[bool, typer.Option(help="Send the labels once all rows were answered.")] = True,
    stack: StackOption = "local",
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send the labelled rows of a past window to a gateway as if they came now, then their outcomes."""
    from cli.traffic import send

    raise typer.Exit(
        send(
            model,
            stack,
            environment,
            gateway,
            start=start,
            end=end,
            rate=rate,
            most=most,
            outcomes=outcomes,
            as_json=as_json,
        )
    )


@rollout.command("status")
def rollout_status(
    model: str, stack: StackOption = "local", environment: EnvironmentOption = None, as_json: JsonOption = False
) -> None:
    """Show how a model's rollout stands."""
    from cli.rollouts import status

    status(model, stack, environment, as_json=as_json)


@rollout.command("history")
def rollout_history(
    model: str, stack: StackOption = "local", environment: EnvironmentOption = None, as_json: JsonOption = False
) -> None:
    """Tell who moved a model's traffic, when, and why."""
    from cli.rollouts import history

    history(model, stack, environment, None, as_json=as_json)


ByOption = Annotated[str, typer.Option("--by", help="The person who answers for it.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept on record.")]


@rollout.command("pause")
def rollout_pause(
    model: str, reason: ReasonOption, by: ByOption, stack: StackOption = "local", environment: EnvironmentOption = None
) -> None:
    """Keep a rollout where it is; what condemns it still takes it back."""
    from cli.rollouts import act

    act("pause", model, by, reason, stack, environment)


@rollout.command("resume")
def rollout_resume(
    model: str, reason: ReasonOption, by: ByOption, stack: StackOption = "local", environment: EnvironmentOption = None
) -> None:
    """Let a paused rollout go on."""
    from cli.rollouts import act

    act("resume", model, by, reason, stack, environment)


@rollout.command("promote")
def rollout_promote(
    model: str, reason: ReasonOption, by: ByOption, stack: StackOption = "local", environment: EnvironmentOption = None
) -> None:
    """Give the version on trial all traffic now, on a person's word."""
    from cli.rollouts import act

    act("promote", model, by, reason, stack, environment)


@rollout.command("rollback")
def rollout_rollback(
    model: str, reason: ReasonOption, by: ByOption, stack: StackOption = "local", environment: EnvironmentOption = None
) -> None:
    """Take the version back, live or on its way, on a person's word."""
    from cli.rollouts import act

    act("rollback", model, by, reason, stack, environment)


@rollout.command("approve")
def rollout_approve(
    model: str, reason: ReasonOption, by: ByOption, stack: StackOption = "local", environment: EnvironmentOption = None
) -> None:
    """Agree to the deployment that waits; nobody agrees to their own."""
    from cli.rollouts import say

    say(model, by, reason, stack, environment, approved=True)


@rollout.command("refuse")
def rollout_refuse(
    model: str, reason: ReasonOption, by: ByOption, stack: StackOption = "local", environment: EnvironmentOption = None
) -> None:
    """Refuse the deployment that waits."""
    from cli.rollouts import say

    say(model, by, reason, stack, environment, approved=False)


@alerts.command("list")
def alerts_list(
    model: Annotated[str | None, typer.Option("--model", help="Only this model's.")] = None,
    over: Annotated[bool, typer.Option("--all", help="Also those that are over or wait to open.")] = False,
    stack: StackOption = "local",
    as_json: JsonOption = False,
) -> None:
    """List alerts, most urgent first."""
    from cli.alerts import list_alerts

    list_alerts(model, stack, over=over, as_json=as_json)


@alerts.command("show")
def alerts_show(alert: str, stack: StackOption = "local", as_json: JsonOption = False) -> None:
    """Tell one alert: what was found, who was told how, what happened since."""
    from cli.alerts import show_alert

    show_alert(alert, stack, as_json=as_json)


@alerts.command("ack")
def alerts_ack(
    alert: str, by: ByOption, reason: ReasonOption, stack: StackOption = "local", as_json: JsonOption = False
) -> None:
    """Take an alert: its escalation stops."""
    from cli.alerts import say

    say("ack", alert, by, reason, stack, as_json=as_json)


@alerts.command("resolve")
def alerts_resolve(
    alert: str, by: ByOption, reason: ReasonOption, stack: StackOption = "local", as_json: JsonOption = False
) -> None:
    """End an alert; a new bad finding opens it again."""
    from cli.alerts import say

    say("resolve", alert, by, reason, stack, as_json=as_json)


@alerts.command("silence")
def alerts_silence(
    by: ByOption,
    reason: ReasonOption,
    span: Annotated[str, typer.Option("--for", help="How long, as in 4h or 7d.")],
    model: Annotated[str | None, typer.Option("--model", help="Alerts of this model; default: of any.")] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="Alerts of this rule; default: of any.")] = None,
    stack: StackOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Tell nobody of a model, a rule or both for a while; alerts stay on record."""
    from cli.alerts import silence

    silence(model, rule, by, reason, span, stack, as_json=as_json)


@alerts.command("incidents")
def alerts_incidents(
    span: Annotated[str, typer.Option("--last", help="How far back, as in 30d.")] = "30d",
    stack: StackOption = "local",
    as_json: JsonOption = False,
) -> None:
    """List what people were told of, how soon they answered, and the share answered in time."""
    from cli.alerts import incidents

    incidents(span, stack, as_json=as_json)


@alerts.command("check")
def alerts_check(as_json: JsonOption = False) -> None:
    """Check both policy files and the accounts, and say who is on call now."""
    from cli.alerts import check

    check(as_json=as_json)


@alerts.command("tick")
def alerts_tick(stack: StackOption = "local", as_json: JsonOption = False) -> None:
    """Look at new findings once and tell what is due, for a scheduler; exit code 7 when a P0 reached nobody."""
    from cli.alerts import tick

    tick(stack, as_json=as_json)


@app.command("history")
def history(
    model: str,
    at: Annotated[str | None, typer.Option("--at", help="Moment, ISO 8601; default: all of it.")] = None,
    stack: StackOption = "local",
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which version served which share of traffic at a moment, who moved it and why."""
    from cli.rollouts import history as show

    show(model, stack, environment, at, as_json=as_json)


@keys.command("add")
def keys_add(
    client: str,
    role: Annotated[list[str], typer.Option("--role", help="predict, label, operate or admin; may be given again.")],
    stack: StackOption = "local",
    environment: EnvironmentOption = None,
) -> None:
    """Make a key, print it once, keep its hash."""
    from cli.serve import add_key
    from cli.workspace import serving_environment

    add_key(serving_environment(stack, environment), client, role)


@keys.command("list")
def keys_list(stack: StackOption = "local", environment: EnvironmentOption = None) -> None:
    """List who holds keys."""
    from cli.serve import list_keys
    from cli.workspace import serving_environment

    list_keys(serving_environment(stack, environment))


@keys.command("remove")
def keys_remove(client: str, stack: StackOption = "local", environment: EnvironmentOption = None) -> None:
    """Take every key of a client back."""
    from cli.serve import remove_keys
    from cli.workspace import serving_environment

    remove_keys(serving_environment(stack, environment), client)


@app.command("dashboard")
def dashboard(
    port: Annotated[int, typer.Option("--port", help="ZenML's port; MLflow takes the next one.")] = 8237,
    stack: StackOption = "local",
) -> None:
    """Open the ZenML dashboard and MLflow's pages over the same state, until Ctrl-C."""
    from cli.dashboard import serve

    raise typer.Exit(serve(port, stack))


def main() -> NoReturn:
    """Run, and answer every foreseeable failure with one message and the exit code of its kind."""
    # A terminated run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:  # Typer turns Ctrl-C into this code and says nothing
            code = _tell(CUT_SHORT, INTERRUPTED)
    except ProDecksError as error:
        code = _tell(str(error), error.exit_code)
    except KeyboardInterrupt:
        code = _tell(CUT_SHORT, INTERRUPTED)
    except OSError as error:
        code = _tell(f"{error.filename or 'the machine'}: {error.strerror or error}", 5)
    except Exception as error:
        # Typer stands on its own copy of click: its usage errors are known by what they can do.
        if hasattr(error, "format_message"):
            told = error.format_message()
            code = _tell(told, 2) if told else 2  # a verb without its subcommand has shown its help already
        elif not was_interrupted(error):
            raise
        else:
            code = _tell(CUT_SHORT, INTERRUPTED)
    sys.stdout.flush()
    sys.stderr.flush()
    raise SystemExit(code)


def _tell(message: str, code: int) -> int:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), redacted(message)))
    return code


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        return f"uid {os.getuid()}"
