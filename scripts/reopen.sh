#!/bin/sh
# Make gunicorn or nginx reopen its log files, and wait until it has: for logrotate's postrotate.
# One file, for any POSIX shell on Linux: copy it to the server.

set -u
export LC_ALL=C
unset QUOTING_STYLE

usage() {
    cat <<'END'
usage: reopen.sh [-t SECONDS] [-p PIDFILE] ... PIDFILE [FILE ...]

Sends SIGUSR1 to the arbiter that PIDFILE names (nginx: the master), and returns when no process
writes to a rotated log file of its any more. Gunicorn's and nginx's own processes that still do
after a second get the signal themselves: a worker that was just starting may have missed it.
All other processes are only waited for, and named.

A rotated log file is one that the arbiter or a process below it appends to, and that has a name as
logrotate gives them (it ends in -20261123, .1 or the like) or that one of them exchanges for a
new file. If FILE ... are given these are waited for, and no others.

  -t SECONDS  how long to wait (default 40: a worker may take 30 to end when gunicorn reloads)
  -p PIDFILE  one more arbiter that writes to the same files

Exit status: 0  no process that this one may look into writes to a rotated file any more
             1  some still do, or have lost their log, or cannot be looked into, and are named
                on stderr: do not compress or remove the files
             2  no signal was sent: wrong arguments or PIDFILE, or /proc cannot be read
END
}

say() {
    printf 'reopen.sh: %s\n' "$*" >&2
}

# 2 is also what a shell that cannot go on exits with, before the signal or after it.
refused=2
refuse() {
    say "$(printable "$*"); no signal was sent"
    exit "$refused"
}

pause() {
    sleep 0.1 2>/dev/null || sleep 1
}

# What others choose the names of: no newline or escape sequence may reach a terminal.
printable() {
    printf %s "$*" | tr -c ' -~' '?'
}

program() {
    printable "$(cat "/proc/$1/comm" 2>/dev/null)"
}

# The state of process $1, its user, and the signals that it catches.
status() {
    state='' user='' caught=''
    while read -r key value _; do
        case $key in
        State:) state=${value#[XZ]} ;;
        Uid:) user=$value ;;
        SigCgt:) caught=$value ;;
        esac
    done <"/proc/$1/status"
    [ -n "$state" ]
} 2>/dev/null

catches_usr1() {
    case $caught in
    *[2367abef]??) ;;
    *) return 1 ;;
    esac
}

readable() {
    [ -r "/proc/$1/fd" ] && [ -e "/proc/$1/root" ]
}
unreadable='may not see which files it has open: that takes its own user, or root with CAP_SYS_PTRACE'

# Gunicorn has a wgunicorn-... file open for each worker, which no program that a worker starts
# inherits. The command line of others may have "gunicorn" in it, too.
serves() {
    case $(tr '\0' ' ' <"/proc/$1/cmdline") in
    'nginx: '*) return ;;
    esac
    find "/proc/$1/fd" -type l -exec stat -c %N {} + | grep -q '/wgunicorn-[^/]*$'
} 2>/dev/null

# Sets pid, or complaint; and again, if the next moment may be better. What the file has in it is
# not shown: whoever may write to its directory could have put any file there.
read_pidfile() {
    again=yes
    complaint='expected a pidfile, found no file to read; is the server running?'
    [ -e "$1" ] || [ -h "$1" ] || return
    again=''
    complaint='expected a pidfile, found no regular file'
    { [ -f "$1" ] && [ ! -h "$1" ]; } || { [ -e "$1" ] || again=yes; return 1; }
    # Of the file that was opened, whatever the name leads to by now
    found=$(
        exec 2>/dev/null # At first: if opening takes for ever, nobody shall wait for the end of stderr
        exec <"$1"
        # shellcheck disable=SC2094  # nothing is written
        stat -Lc '%d:%i %u' /proc/self/fd/0 && stat -c '%d:%i %F' -- "$1" && head -c 20 | tr -d '\0'
    )
    {
        read -r opened owner
        read -r there type
        read -r pid
    } <<END
$found
END
    again=yes
    complaint='expected a pidfile, cannot read it'
    case "$opened $type" in
    "$there regular "*) ;;
    *) return 1 ;;
    esac
    complaint='expected a process id, found something else'
    [ -n "$pid" ] || return
    again=''
    case $pid in
    0* | *[!0-9]* | ???????????*) return 1 ;;
    esac
    complaint='stale, there is no such process; is the server running?'
    status "$pid" || return
    # So its owner can make root signal only what he may signal himself.
    complaint="belongs to user $owner, but the process that it names to user $user"
    [ "$owner" = 0 ] || [ "$owner" = "$user" ] || return
    complaint="process $pid: $unreadable"
    readable "$pid" || return
    again=yes
    complaint="expected a gunicorn arbiter or nginx master, found process $pid ($(program "$pid"))"
    serves "$pid" && catches_usr1
}

find_arbiter() {
    # Gunicorn removes its pidfile and writes it anew when it reloads.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if read_pidfile "$1"; then
            arbiters="$arbiters $pid"
            return
        fi
        [ -n "$again" ] || break
        pause
    done
    refuse "$1: $complaint"
}

# What awk makes of what look() feeds to it. A member is an arbiter, or a process below one.
# shellcheck disable=SC2016
analysis='
function is_member(pid,    ancestor, hops) {
    for (ancestor = pid; !(ancestor in member) && hops++ < NR; ancestor = parent[ancestor]);
    return member[pid] = member[ancestor] + 0
}
BEGIN {
    for (i = split(arbiters, list); i > 0; i--) member[list[i]] = arbiter[list[i]] = 1
    member[0] = member[""] = 0
}
/^(\047|[0-9:]+ )?\/proc\/version/ { complete++ }
$1 == "had" { had[$2, $3]; known[$2] }
$1 == "rotated" { rotated[$2] = certain[$2] = 1 }
$2 ~ /^\/proc\/[0-9]+\/fd\// { inode[$2] = $1 }
split($1, part, /[\/:]/) > 4 && part[2] == "proc" {
    if (part[5] == "PPid") parent[part[3]] = $2
    if (part[5] == "State" && $2 ~ /[XZ]/) dead[part[3]]
    if (part[6] == "flags") writes["/proc/" part[3] "/fd/" part[5]]
}
complete >= 2 && match($0, /^\047\/proc\/[0-9]+\/fd\/[0-9]+\047 -> /) {
    file = substr($0, 2, RLENGTH - 6)
    sub(/^.*\//, "")
    sub(/( \(deleted\))?[\047"]$/, "")
    if (/[^-+.:_0-9TZ][-+.:_0-9TZ]*[-._][0-9][-+.:_0-9TZ]*$/) named[file]
}
END {
    for (pid in parent) if (is_member(pid) && !(pid in dead)) print "member", pid
    for (file in writes) {
        split(file, part, "/")
        pid = part[3]
        if (!(file in inode) || !is_member(pid)) continue
        has[pid, inode[file]]
        if (file in named && !only_named) rotated[inode[file]] = 1
        if (pid in known && !((pid, inode[file]) in had)) fresh[inode[file]]
    }
    # A process that was just reopening its files when it was first looked at had both; others did not.
    for (key in has) {
        split(key, part, SUBSEP)
        if (part[2] in fresh) gained[part[1]]++
    }
    for (key in had) {
        split(key, part, SUBSEP)
        pid = part[1]
        if (key in has || pid in dead || !member[pid] || !(pid in parent)) continue
        if (gained[pid] && !only_named) rotated[part[2]] = 1
        if (gained[pid] && pid in arbiter) certain[part[2]]
        gone[pid, part[2]]
    }
    for (key in gone) {
        split(key, part, SUBSEP)
        if (part[2] in certain && ++lost[part[1]] == gained[part[1]] + 1) print "lost", part[1]
    }
    for (file in writes) {
        split(file, part, "/")
        pid = part[3]
        if (!(inode[file] in rotated) || held[pid, inode[file]]++) continue
        if (number[pid]++ < 20) holds[pid] = holds[pid] " " file
    }
    for (pid in holds) print "holds", pid holds[pid]
    if (before) for (key in has) { sub(SUBSEP, " ", key); print "had", key }
    for (key in rotated) print "rotated", key
    if (complete >= 2 + before) print "complete"
}'

files() {
    find -L /proc/[0-9]*/fd /proc/version -maxdepth 1 -type f -exec stat "$@" {} +
}

# Sets report. Each list ends with /proc/version: one that was cut short, as no process could be had, is none.
look() {
    report=$(
        exec 2>/dev/null
        {
            printf '%s\n' "$known"
            grep -Ers "^(PPid|State|flags:.*$flags\$|Linux)" /proc/[0-9]*/status /proc/[0-9]*/fdinfo /proc/version
            files -Lc '%d:%i %n'
            [ "$before" = 0 ] || files -c %N
        } | awk -v arbiters="$arbiters" -v only_named="$only_named" -v before="$before" "$analysis"
    )
    case $report in
    *complete) ;;
    *) return 1 ;;
    esac
}

# Sets pending: what is still to be waited for; and found, if there is any rotated file.
judge() {
    pending='' found=''
    while read -r kind pid files; do
        case $kind in
        holds | lost) pending="$pending$kind $pid $files$newline" ;;
        member) readable "$pid" || ! status "$pid" || pending="${pending}hidden $pid$newline" ;;
        rotated) found=yes ;;
        esac
    done <<END
$report
END
}
newline='
'

# Only what runs the arbiter's own program as the arbiter's user reopens its files: to others the
# signal may mean anything, and Node.js, say, opens a debugger. (Root's arbiter changes its workers' user.)
may_signal() {
    status "$1" && catches_usr1 && serves "$1" || return
    set -- "$1" "$user"
    for arbiter in $arbiters; do
        [ "$(stat -Lc %d:%i "/proc/$1/exe")" = "$(stat -Lc %d:%i "/proc/$arbiter/exe")" ] && status "$arbiter" &&
            { [ "$user" = 0 ] || [ "$user" = "$2" ]; } && return
    done
    return 1
} 2>/dev/null

signal_again() {
    while read -r _ pid _; do
        may_signal "$pid" && kill -USR1 "$pid"
    done
} 2>/dev/null

name_processes() {
    number=0
    while read -r kind pid files; do
        if [ $((number += 1)) -gt 20 ]; then
            echo '  and others'
            return
        fi
        who="  process $pid ($(program "$pid")"
        [ "$kind" = hidden ] || may_signal "$pid" || who="$who, not signalled"
        case $kind in
        holds)
            for file in $files; do
                printf '%s): %s\n' "$who" "$(printable "$(readlink "$file")")"
            done
            ;;
        lost) printf '%s): has closed a rotated file and has no new one instead\n' "$who" ;;
        hidden) printf '%s): %s\n' "$who" "$unreadable" ;;
        esac
    done
} >&2

# Whole seconds since boot: no change of the clock makes the wait longer or shorter.
uptime() {
    read -r now _ </proc/uptime
    now=${now%.*}
}

reopen() {
    refused=3
    arbiters=''
    OPTIND=1
    while getopts :t:p: option; do
        [ "$option" != p ] || find_arbiter "$OPTARG"
    done
    shift $((OPTIND - 1))
    find_arbiter "$1"
    shift
    known='' flags='[2367]..[12]' only_named=''
    if [ $# -gt 0 ]; then
        for file; do
            [ -f "$file" ] || refuse "$file: expected a rotated file, found none"
        done
        known=$(stat -Lc 'rotated %d:%i' -- "$@") flags='[12]' only_named=yes || refuse "cannot look at $*"
    fi
    before=1
    look || refuse 'cannot look at all processes'
    known=$report before=0
    # shellcheck disable=SC2086  # one word for each process
    kill -0 $arbiters 2>/dev/null || refuse "cannot signal process$arbiters"
    # shellcheck disable=SC2086
    kill -USR1 $arbiters

    uptime
    start=$now told=$now calm=0 found=''
    # Twice: what is just being forked from a process that has yet to let go is there the next time.
    while [ $calm -lt 2 ]; do
        for arbiter in $arbiters; do
            status "$arbiter" && continue
            say "process $arbiter ended meanwhile; whether its workers still write to rotated files is unknown"
            exit 1
        done
        calm=$((calm + 1)) pending=''
        look && judge || calm=0
        [ -z "$pending" ] || calm=0
        uptime
        # A file that no name gives away shows only when it is exchanged.
        [ -n "$found" ] || [ $((now - start)) -gt 1 ] || calm=0
        [ $calm = 0 ] || continue
        if [ -z "$pending" ] && [ $((now - start)) -gt $((timeout + 2)) ]; then
            say 'cannot look at all processes; whether they still write to rotated files is unknown'
            exit 1
        fi
        if [ -n "$pending" ] && [ $((now - start)) -gt "$timeout" ]; then
            say "after $timeout s these processes still write to rotated files; do not compress or remove them:"
            printf %s "$pending" | name_processes
            exit 1
        fi
        if [ $((now - told)) -gt 1 ]; then
            printf %s "$pending" | signal_again
            told=$now
        fi
        pause
    done
    [ -n "$found" ] || say "found no rotated file of this server; is it the right PIDFILE?"
}

for tool in awk cat find grep head readlink sleep stat tr; do
    command -v "$tool" >/dev/null && continue
    say "expected $tool on the PATH, found none; no signal was sent"
    exit 2
done
timeout=40
case ${1-} in --help) set -- -h ;; esac
while getopts :ht:p: option; do
    case $option in
    h)
        usage
        exit
        ;;
    t) timeout=$OPTARG ;;
    p) ;;
    *) refuse "unknown option or no value: -$OPTARG; see reopen.sh -h" ;;
    esac
done
case $timeout in
'' | *[!0-9]* | ??????*) refuse "-t: expected whole seconds, found '$timeout'" ;;
esac
[ $# -ge "$OPTIND" ] || refuse "expected a PIDFILE; see reopen.sh -h"
[ -r /proc/self/status ] || refuse "expected Linux, found no /proc"

# In a process of its own: nothing that it may have to wait for makes this one wait any longer.
sleep $((timeout + 10)) &
timer=$!
trap 'kill "$timer"' EXIT # If there is no process left for what comes next
(
    trap 'kill "$timer"' EXIT
    reopen "$@"
    exit 4
) &
reopening=$!
trap - EXIT
if wait "$timer" 2>/dev/null; then
    # A child of it may be opening a file for ever, and would live on
    # shellcheck disable=SC2046  # one word for each process
    kill -KILL "$reopening" $(grep -ls "^PPid:.$reopening\$" /proc/[0-9]*/status | tr -dc '0-9\n') 2>/dev/null
    say "gave up after $((timeout + 10)) s; whether processes still write to rotated files is unknown"
    exit 1
fi
wait "$reopening"
case $? in
4) exit 0 ;;
3) exit 2 ;;
*) exit 1 ;;
esac
