#!/bin/sh
# Make gunicorn or nginx reopen its log files, and wait until it has: for logrotate's postrotate.
# One file, for any POSIX shell on Linux: copy it to the server.

set -u
export LC_ALL=C

usage() {
    cat <<'END'
usage: reopen.sh [-t SECONDS] PIDFILE [FILE ...]

Sends SIGUSR1 to the arbiter that PIDFILE names (nginx: the master), and returns when neither it
nor any process below it writes to a rotated log file. Processes that still do after a second get
the signal themselves: a worker that was just starting may have missed it.

A rotated log file is one that is open for appending and has a name as logrotate gives them: it
ends in -20261123, .1 or the like. If FILE ... are given these are waited for, and no others.

  -t SECONDS  how long to wait (default 10)

Exit status: 0  no process writes to a rotated file any more
             1  some still do, and are named on stderr: do not compress or remove the files
             2  no signal was sent: wrong arguments or PIDFILE, or /proc cannot be read
END
}

refuse() {
    printf 'reopen.sh: %s; no signal was sent\n' "$*" >&2
    exit 2
}

pause() {
    sleep 0.1 2>/dev/null || sleep 1
}

alive() {
    grep -qs '^State:[[:space:]]*[^XZ]' "/proc/$1/status"
}

catches_usr1() {
    grep -qs '^SigCgt:.*[2367abef]..$' "/proc/$1/status"
}

readable() {
    [ -r "/proc/$1/fd" ] && [ -e "/proc/$1/root" ]
}

# An arbiter may run under any name, but has a wgunicorn-... file open for each worker.
is_server() {
    { tr '\0' ' ' <"/proc/$1/cmdline"; ls -l "/proc/$1/fd"; } 2>/dev/null | grep -Eq 'gunicorn|nginx'
}

find_arbiter() {
    arbiter=
    # Reading from a pipe could wait forever
    [ ! -e "$1" ] || [ -f "$1" ] || refuse "$1: expected a pidfile, found no regular file"
    # Gunicorn removes its pidfile and writes it anew when it reloads
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        { read -r arbiter <"$1"; } 2>/dev/null
        [ -z "$arbiter" ] || break
        pause
    done
    [ -n "$arbiter" ] || { [ -f "$1" ] && [ -r "$1" ]; } ||
        refuse "$1: expected a pidfile, found no file to read; is the server running?"
    case $arbiter in
    '' | 0* | *[!0-9]*) refuse "$1: expected a process id, found '$arbiter'" ;;
    esac
    alive "$arbiter" || refuse "$1: stale, there is no process $arbiter; is the server running?"
    readable "$arbiter" || refuse "may not see which files process $arbiter has open; run this as root"
    { is_server "$arbiter" && catches_usr1 "$arbiter"; } ||
        refuse "$1: expected a gunicorn arbiter or nginx master, found process $arbiter ($(cat "/proc/$arbiter/comm"))"
}

# The children of the processes $1 ... A process that lives through this is found for certain;
# the kernel's own /proc/PID/task/PID/children may leave some out.
children() (
    IFS='|'
    grep -Els "^PPid:[[:space:]]*($*)\$" /proc/[0-9]*/status | tr -cd '0-9\n'
)

# The flags that the descriptor $1 was opened with: octal, as in Linux's headers.
flags() {
    { while read -r key value; do
        [ "$key" != flags: ] || echo "$value"
    done <"${1%/fd/*}/fdinfo/${1##*/}"; } 2>/dev/null
}

# Does the descriptor $1 write to one of the files $2 ...?
writes_to() {
    descriptor=$1
    shift
    case $(flags "$descriptor") in
    *[12]) ;;
    *) return 1 ;;
    esac
    for file; do
        # shellcheck disable=SC3013  # Every sh on Linux has -ef, POSIX since 2024
        [ "$descriptor" -ef "$file" ] && return
    done
    return 1
}

# Does the descriptor $1 append to a file that is named as logrotate names rotated ones?
appends_to_rotated() {
    case $(flags "$1") in
    *[2367]???) ;;
    *) return 1 ;;
    esac
    name=$(readlink "$1") || return 1
    name=${name##*/}
    name=${name%' (deleted)'}
    suffix=${name##*[!-+.:_0-9TZ]}
    case $suffix in
    "$name") return 1 ;;
    *[-._][0-9]*) ;;
    *) return 1 ;;
    esac
}

# Prints a line for each rotated file that process $1 has open; the files $2 ... if there are any.
held_by() {
    pid=$1
    shift
    if ! readable "$pid"; then
        alive "$pid" && echo "$pid: may not see which files it has open; run this as root"
        return
    fi
    for fd in "/proc/$pid/fd/"*; do
        [ -f "$fd" ] || continue
        if [ $# -gt 0 ]; then writes_to "$fd" "$@"; else appends_to_rotated "$fd"; fi || continue
        # A newline in a name must not look like another process to signal
        printf '%s: %s\n' "$pid" "$(readlink -n "$fd" | tr '\n' '?')"
    done
}

# From the arbiter down, and the children of a process only when it has been looked at: what it
# forks after it has let go of the rotated files does not have them, what it forked before is listed.
held() {
    level=$arbiter
    while [ -n "$level" ]; do
        for member in $level; do
            held_by "$member" "$@"
        done
        # shellcheck disable=SC2086  # one word for each process
        level=$(children $level)
    done
}

# Signals the processes that the lines of held() name, unless it would kill them.
signal_holders() {
    while IFS=: read -r pid _; do
        if catches_usr1 "$pid"; then echo "$pid"; fi
    done | sort -u | while read -r pid; do
        kill -USR1 "$pid" 2>/dev/null # It may have ended since.
    done
}

# Whole seconds since boot: no change of the clock makes the wait longer or shorter.
uptime() {
    read -r seconds _ </proc/uptime
    echo "${seconds%.*}"
}

timeout=10
while getopts :ht: option; do
    case $option in
    h)
        usage
        exit
        ;;
    t) timeout=$OPTARG ;;
    *) refuse "unknown option or no value: -$OPTARG; see reopen.sh -h" ;;
    esac
done
shift $((OPTIND - 1))
case $timeout in
'' | *[!0-9]* | ??????*) refuse "-t: expected whole seconds, found '$timeout'" ;;
esac
[ $# -gt 0 ] || refuse "expected a PIDFILE; see reopen.sh -h"
[ -r /proc/self/status ] || refuse "expected Linux, found no /proc"
for tool in cat grep ls readlink sleep sort tr; do
    command -v "$tool" >/dev/null || refuse "expected $tool on the PATH, found none"
done
find_arbiter "$1"
shift
for file; do
    [ -f "$file" ] || refuse "$file: expected a rotated file, found none"
done

kill -USR1 "$arbiter" || refuse "cannot signal process $arbiter"
start=$(uptime)
signalled=$start
while holders=$(held "$@") && [ -n "$holders" ]; do
    now=$(uptime)
    if [ $((now - start)) -gt "$timeout" ]; then
        echo "reopen.sh: after $timeout s these processes still write to rotated files:" >&2
        printf '%s\n' "$holders" | while IFS=: read -r pid file; do
            printf '  process %s (%s):%s\n' "$pid" "$(cat "/proc/$pid/comm" 2>/dev/null)" "$file" >&2
        done
        exit 1
    fi
    if [ $((now - signalled)) -gt 1 ]; then
        printf '%s\n' "$holders" | signal_holders
        signalled=$now
    fi
    pause
done

if ! alive "$arbiter"; then
    echo "reopen.sh: process $arbiter ended meanwhile; whether its workers still write to rotated files is unknown" >&2
    exit 1
fi
