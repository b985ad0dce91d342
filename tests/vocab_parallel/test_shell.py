"""Launch scripts are read as bash reads them: bash itself is the oracle."""

import re
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from vocab_parallel.inputs.shell.arithmetic import whole
from vocab_parallel.inputs.shell.script import Script
from vocab_parallel.inputs.shell.values import told

needs_bash = pytest.mark.skipif(which("bash") is None, reason="bash is not installed")

SNIPPETS = {
    "arrays": 'A=(a \'b c\' "d e" # why\n # f\n  g)\ntool ${A[@]}\ntool "${A[@]}" ${#A[@]} ${A[1]}',
    "arrays grow": "A=()\nA+=(--x 1)\nA+=(\"--y 2\" '--z')\ntool ${A[@]} | tee x",
    "array in a string": 'A=(1 2)\nB="${A[@]} 3"\ntool $B "$B" "${A[*]}" "pre${A[0]}post"',
    "elements": "A[2]=c; A[0]=a; i=1\ntool ${A[0]} ${A[i+1]} ${A[$((1+1))]}",
    "defaults": 'X=${Y:-"a b"}; : "${Z:=3}"; W=${V-}; tool $X "$X" $Z $W "$W" ${X:+yes} ${Y:+no}',
    "nested defaults": "A=1; tool ${B:-${C:-$A}} ${B:-x$((A+1))}",
    "cut": "F=/a/b.c.d; tool ${F##*/} ${F#*/} ${F%.*} ${F%%.*} ${F//./-} ${F/b/x} ${F:1:3} ${#F}",
    "case": "N=LLama; tool ${N^^} ${N,,}",
    "indirect": "A=B; B=5; tool ${!A}",
    "sums": "G=8; N=3; W=$(($G*$N)); tool $W $((G * (N + 1) - 2)) $((7/2)) $((-7/2)) $((-7%3))",
    "continued": "tool --a 1 \\\n  --b \\\n  --c 'x\\\ny' \"p\\\nq\"",
    "comment ends a continued line": "tool --a \\\n # --b \\\ntool --c",
    "quotes": 'tool \'a"b\' "c\'d" e\\ f "g\\"h" "\\$x" \'\' "" $\'i\' "a"\'b\'c a#b',
    "blanks of variables split": 'A="  a   b "; tool $A "$A" x$A',
    "if": 'D=fp8; if [[ "$D" == "fp8" ]]; then tool yes; elif [ 1 ]; then tool no; fi',
    "else": 'if [ -z "$Q" ] && [ 3 -gt 2 ]; then tool 1; else tool 2; fi; [ -n x ] || tool 3',
    "patterns": "if [[ llama3 == llama* ]] && ! [[ a != a ]]; then tool match; fi",
    "or inside": 'if [[ "a" == "b" || "c" == "c" && -z "" ]]; then tool both; fi',
    "case statement": "M=7b; case $M in\n 1b|3b) L=1 ;;\n 7b) L=2;;\n *) L=3\nesac\ntool $L",
    "for": "for S in 1 2 'a b'; do tool --s $S; done",
    "while": "N=1; while [ $N -lt 100 ]; do N=$((N * 3)); tool $N; done; until true; do tool; done",
    "options": "while [[ $# -gt 0 ]]; do case $1 in *) shift;; esac; done; tool after $#",
    "builtins": "let N=2*4; set -- a 'b c'; X=1; unset X; set -e; printf x; tool $N $# \"$2\" -$X-",
    "functions": "f() { tool $1 \"$2\" $#; }\nfunction g { f $2 x; }\nf a 'b c'\ng 1 2",
    "shift": "f() { shift; tool $@ \"$@\" $1; }\nf a 'b c' d",
    "eval": 'C="tool --a 1 \\\n --b $((2+3))"\necho $C\neval $C',
    "eval with quotes": "O=\" --x 'a b' \"; eval tool ${O}",
    "commands joined": "true && tool a; false || tool b; false && tool c; { tool d; }; ( tool e )",
    "documents": "cat > f <<EOF\ntool not ( this\nEOF\ntool this",
    "redirected": "tool a > out 2>&1; tool b &> log; tool c 2> err; tool 2 >x",
    "echo": "A=$(echo a b); B=`echo c`; tool $A $B $(basename /x/y.sh) $(dirname /x/y.sh)",
    "environment": "X=1 Y=2 tool a; export Z=3 W; tool $Z",
    "declared": "declare -a A=(1 2); readonly B=4; local C=5 2>/dev/null; tool ${A[@]} $B",
    "unset": 'tool --a $NOT_SET --b "$NOT_SET" ${ALSO_NOT}',
    "append": 'O=a; O+=" b"; O="$O c"; tool $O',
    "arithmetic command": "(( 2 > 1 )) && tool yes; N=4; if (( N == 4 )); then tool four; fi",
    "double": "[[ -n $NOT && x == x ]] && tool a; [[ ! -f /no/file ]] && tool b",
    "semicolons": "A=1;B=2;tool $A$B;tool ${A}x$B",
    "positional": 'X=${1:-none}; Y=$2; tool $X $Y $# "$3"',
    "sub-expression": "A=$(( (1+2)*3 )); tool $A $(expr 2 + 3)",
    "windows": "A=1\r\ntool $A \\\r\n --b\r\n",
}


def started(text: str) -> list[list[str]]:
    found = Script(text, Path()).started
    return [list(item.words[1:]) for item in found if item.words[0] == "tool"]


def by_bash(text: str, folder: Path) -> list[list[str]]:
    words = 'for w in "$@"; do printf \'%s\\001\' "$w" >> calls; done'
    tool = f"tool() {{ {words}; printf '\\002' >> calls; }}"
    (folder / "calls").touch()
    script = f"{tool}\n{text}".replace("\r\n", "\n")
    command = ["bash", "-c", script, "script"]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=30, check=False)
    return [call.split("\1")[:-1] for call in (folder / "calls").read_text().split("\2")[:-1]]


@needs_bash
@pytest.mark.parametrize("name", SNIPPETS)
def test_a_script_starts_what_bash_would(name: str, tmp_path: Path) -> None:
    expected = by_bash(SNIPPETS[name], tmp_path)
    assert expected
    assert started(SNIPPETS[name]) == expected


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0\1\2\r"), max_size=8)))
def test_quoted_words_come_back_as_they_are(words: list[str]) -> None:
    assert started(shlex.join(["tool", *words])) == [words]
    array = f"A=({shlex.join(words)})\n" + 'tool "${A[@]}"'
    assert started(array) == [words]


@given(st.text("ab(){}[]$\"'`\\\n ;&|<>#=!*@1", max_size=24))
def test_any_text_is_read_or_refused_in_a_sentence(text: str) -> None:
    with suppress(InputError):
        Script(text, Path("/nowhere"))


def test_what_a_program_prints_is_not_known() -> None:
    ((value,),) = started("A=$(nvidia-smi -L | wc -l); eval tool $A")
    assert told(value) == "`nvidia-smi -L | wc -l`"
    with pytest.raises(InputError, match=r"line 1: whether `grep -q x y` succeeds is not known"):
        started("if grep -q x y; then tool; fi")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tool 'a\nb", "a ' is not closed"),
        ('x=1\ntool "a', 'line 2: a " is not closed'),
        ("A=(1 2\ntool", "is not closed"),
        ("tool $(a", "a ( is not closed"),
        ("if [ 1 ]; then tool", "line 1: `if` without fi"),
        ("tool; fi", "line 1: 'fi' without its beginning"),
        ("while true; do X=1; done", "`while` does not end in 1000 turns"),
        ("while read line; do tool; done", "whether `read line` succeeds is not known"),
        ("mapfile A < f", "`mapfile` sets what is not known here"),
        ("printf -v A x", "`printf` sets what is not known here"),
        ("select a in b; do tool; done", "`select` is not read"),
        ("declare -A M=([a]=b)", "(declare -A) are not read"),
        ("M=([2]=b)", "places inside an array ([2]=x) are not read"),
        ("tool $((1/0))", "no sum of whole numbers"),
        ("f() { f; }; f", "calls itself without end"),
        ("tool ${X:?}", "X is not set"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        started(text)


def test_sums_stay_small() -> None:
    assert whole("2**10") == 1024
    with pytest.raises(InputError):
        whole("9**9**9")
