"""What tokens cost: the user's prices, else the list that comes with genai-prices. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable

from cudaforge.llm.settings import OpenAISettings
from cudaforge.trace import Usage

_BYTES_PER_TOKEN = 3
"""English and code come to 3 to 4 bytes a token; the lower end, so that an estimate is rather too high."""


def priced(
    model: str,
    base_url: str,
    settings: OpenAISettings,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
    *,
    estimated: bool = False,
) -> Usage:
    """Tokens with their price. `cached_tokens` is the part of `input_tokens` that came from the server's cache."""
    cached_tokens = min(cached_tokens, input_tokens)
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
        usd=_usd(model, base_url, settings, input_tokens, output_tokens, cached_tokens),
        estimated=estimated,
    )


def estimate_tokens(texts: Iterable[str]) -> int:
    """A likely number of tokens, where the server does not say."""
    return -(-sum(len(text.encode()) for text in texts) // _BYTES_PER_TOKEN)


def most_tokens(texts: Iterable[str]) -> int:
    """A number of tokens that is not exceeded: a token is at least one byte, and each message has a frame."""
    return sum(len(text.encode()) + 16 for text in texts)


def _usd(
    model: str, base_url: str, settings: OpenAISettings, input_tokens: int, output_tokens: int, cached_tokens: int
) -> float | None:
    if settings.usd_per_million_input is not None and settings.usd_per_million_output is not None:
        cached_price = settings.usd_per_million_cached
        if cached_price is None:
            cached_price = settings.usd_per_million_input
        return (
            (input_tokens - cached_tokens) * settings.usd_per_million_input
            + cached_tokens * cached_price
            + output_tokens * settings.usd_per_million_output
        ) / 1e6

    import genai_prices

    tokens = genai_prices.Usage(
        input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached_tokens or None
    )
    try:
        # By address, not by name alone: a local server may serve anything under the name of a model that costs money.
        return float(genai_prices.calc_price(tokens, model, provider_api_url=base_url).total_price)
    except LookupError:
        return None
