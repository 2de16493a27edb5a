"""Make ZenML's stack equal to a stack file: created or updated, never doubled, and told what changed (RO.4)."""

from __future__ import annotations

from typing import Any

from stacks.stack_file import StackFile


def apply_stack(stack: StackFile) -> list[str]:
    """Register and activate a stack.

    Parameters
    ----------
    stack
        The stack file, placeholders filled.

    Returns
    -------
    list of str
        What changed, in words; empty when ZenML already agreed.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    changes: list[str] = []
    components: dict[Any, Any] = {}
    for kind, component in stack.components.items():
        type_ = StackComponentType(kind)
        name = f"{stack.name}_{kind}"
        existing = _only(client.list_stack_components(type=type_, name=name))
        if existing and existing.flavor_name != component.flavor:
            client.update_stack_component(
                existing.id, type_, name=f"{name}_{existing.flavor_name}_{existing.id.hex[:8]}"
            )
            changes.append(f"{name}: flavor {existing.flavor_name} replaced by {component.flavor}")
            existing = None
        if existing is None:
            existing = client.create_stack_component(name, component.flavor, type_, dict(component.configuration))
            changes.append(f"{name}: created ({component.flavor})")
        else:
            differing = {
                key: value
                for key, value in component.configuration.items()
                if str(existing.configuration.get(key)) != value
            }
            if differing:
                existing = client.update_stack_component(existing.id, type_, configuration=differing)
                changes += [f"{name}: {key} changed" for key in sorted(differing)]
        components[type_] = existing.id

    registered = _only(client.list_stacks(name=stack.name))
    if registered is None:
        client.create_stack(stack.name, components)
        changes.append(f"stack {stack.name}: created")
    else:
        current = {kind: [part.id for part in parts] for kind, parts in registered.components.items()}
        if current != {kind: [identity] for kind, identity in components.items()}:
            client.update_stack(registered.id, component_updates={kind: [part] for kind, part in components.items()})
            changes.append(f"stack {stack.name}: components changed")
    if client.active_stack_model.name != stack.name:
        client.activate_stack(stack.name)
        changes.append(f"stack {stack.name}: activated")
    return changes


def _only(page: Any) -> Any:
    return page.items[0] if page.items else None
