"""From a template to text."""

from lobbycard.report import words


def render(template: str, **context) -> str:
    """One of this folder's templates as text; whatever comes from users is escaped in `.html.j2`.

    Jinja is imported here: serving a model needs neither it nor this.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("lobbycard.report", "."),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": words.number, "interval": words.interval, "listed": words.listed}
    environment.filters |= {"signed": words.signed, "signed_interval": words.signed_interval}
    environment.globals |= {"counted": words.counted, "exists": words.exists}
    return environment.get_template(template).render(**context)
