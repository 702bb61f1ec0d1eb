"""The blocks of code in a text of Markdown."""

import inspect
import re


def code_blocks(text, language="python"):
    """Each block of this language, in order, from its own left margin."""
    return [inspect.cleandoc("\n" + block) for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]
