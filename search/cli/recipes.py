"""The command that lists the published recipes, or prints one."""

from __future__ import annotations

import click

from search.cli.shared import console, json_option, print_result


@click.command(
    epilog="\b\nExamples:\n  twinhead recipes\n  twinhead recipes birender-cnn > mine.yaml\n"
    "  twinhead recipes birender-cnn --json --faithful"
)
@click.argument("name", required=False)
@click.option("--faithful", is_flag=True, help="As published, with the errors that were corrected.")
@json_option
def recipes(name: str | None, faithful: bool, as_json: bool) -> None:
    """List the published recipes, or print one as YAML.

    A recipe is a YAML file: copy it, change it, and pass the path of the copy to 'train' or 'compare'. It ends with a
    list of the corrections: those that --faithful undoes, and those that it does not, with the reason.
    """
    from search.recipes.listing import as_text, describe_whole, list_recipes, show_recipes
    from trainable.recipes import load_recipe

    if name is None:
        listed = list_recipes(faithful=faithful)
        print_result(listed, as_json, lambda: show_recipes(console(), listed))
    else:
        recipe = load_recipe(name, faithful=faithful or None)
        if as_json:
            print_result(describe_whole(recipe), True, lambda: None)
        else:
            click.echo(as_text(recipe), nl=False)
