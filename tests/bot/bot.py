#!/usr/bin/env python3
"""A bot on `dsc pipe --json`: it answers in a room, end to end encrypted, with the standard library alone.

    bot.py ROOM DSC [ARGUMENT...]

DSC and its arguments are the command to run, without `pipe`. Whoever says "!echo WORDS" in ROOM hears WORDS
back, whoever says "!sum NUMBERS" their sum. "!quit" ends the bot.
"""

import json
import subprocess
import sys


def answer(text):
    """What the bot says to a text; None for nothing."""
    command, _, rest = text.partition(" ")
    if command == "!echo":
        return rest or "echo what?"
    if command == "!sum":
        try:
            return str(sum(int(word) for word in rest.split()))
        except ValueError:
            return "that is no number"
    return None


def main():
    room, command = sys.argv[1], sys.argv[2:]
    pipe = subprocess.Popen(
        [*command, "--json", "pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
    )

    def do(**request):
        pipe.stdin.write(json.dumps(request) + "\n")
        pipe.stdin.flush()

    for line in pipe.stdout:
        event = json.loads(line)
        print(json.dumps(event), flush=True)
        if event["event"] != "message" or event["target"] != room or event["own"]:
            continue
        # What the server could have made up is not obeyed.
        if not event["encrypted"] or event["content"]["kind"] != "text":
            continue
        text = event["content"]["text"]
        if text == "!quit":
            do(do="quit")
            continue
        reply = answer(text)
        if reply is not None:
            do(do="send", to=room, text=reply)
    return pipe.wait()


if __name__ == "__main__":
    sys.exit(main())
