#!/bin/sh
# usage: reopen.sh [-t SECONDS] [-p PIDFILE] ... {PIDFILE | -u UNIT} [FILE ...]
#        In logrotate's postrotate: reopen.sh PIDFILE "$@"
# Makes gunicorn or nginx reopen its log files. Sends SIGUSR1 to the process in PIDFILE, which is Gunicorn's main
# process (the arbiter) or nginx's (the master), and returns when no process writes to the rotated files any more.
# Each FILE is a rotated file, a log, or a pattern for logs. For a log, reopen.sh finds the rotated files. Without a
# FILE, it takes each log that the server has open, and each open file with a name such as access.log.1.
#   -u, --unit UNIT        use the main process of this systemd unit instead of a PIDFILE
#   -p, --pidfile PIDFILE  one more arbiter that writes to the same files
#   -t, --timeout SECONDS  how long to wait (default: 40; set more than Gunicorn's --graceful-timeout, 30 by default)
# Exit status: 0  no process writes to a rotated file any more
#              1  a process still writes, or no rotated file was found, or reopen.sh cannot find out who writes (see
#                 stderr): do not compress the files
#              2  no signal was sent: wrong arguments, or no such server
# shellcheck disable=SC2010,SC2012,SC2015,SC2016,SC2046,SC2086,SC2094,SC2231,SC3013,SC3067
set -u
export LC_ALL=C
unset QUOTING_STYLE IFS
newline='
'
date='[-._][0-9][0-9][0-9][0-9]*[0-9][0-9][0-9][0-9]' # In the name of a rotated file, as a pattern
# sh has no local variables: a function changes those of its caller. What the functions share on purpose:
#   given      the argument that is looked at, for a refusal
#   pid        the process that the last pidfile or unit names (read_pidfile, read_unit)
#   caught     the signals that the last process has handlers for (status); catches asks for some of them
#   complaint  why the last process is no arbiter (read_pidfile, read_unit, is_arbiter)
#   arbiters   the processes to signal (find_arbiter)
#   files      the rotated files, one a line (find_rotated, find_open, find_files)
#   how        the file that somebody writes to, or why it is not known which (somebody_writes)
#   below      the arbiters and all processes below them, one a line (signal_again), for is_worker
#   failed     the exit status if anything fails: 2, and 1 once the signal was sent
exec 3>&2 # For what is said while errors are redirected
say() { printf 'reopen.sh: %s\n' "$*" >&3; }
# Of text that others choose, such as names of files: no newline or escape sequence may reach a terminal.
printable() { printf %s "$*" | tr -c ' -~' '?'; }
refuse() { say "$(printable "$*"); no signal was sent"; exit 2; } # Also if nothing can be said, on a full disk
# Sets caught, the signals that process $1 handles: signal N is bit N - 1. Fails if the process has ended. From
# /proc/PID/stat, because that is one line, and shells read files byte by byte. Behind the name, $1 is the state
# and $32 the signals: fields 3 and 34, state and sigcatch, in proc(5).
status() {
    IFS= read -r caught <"/proc/$1/stat" || return
    set -- ${caught##*) }
    caught=${32-0} && case $1 in X | Z) return 1 ;; esac
} 2>/dev/null
catches() { [ $((caught & $1)) = $(($1)) ]; }

# Whether process $1 is one, by the signals that it handles, which everybody may read: status has just set caught.
# 0x8014a07 is HUP INT QUIT USR1 USR2 TERM CHLD WINCH, which nginx handles, too, so its title counts as well.
# 0x8314a07 has TTIN and TTOU besides: only gunicorn handles these.
is_arbiter() {
    catches 0x8314a07 && return
    IFS= read -r command <"/proc/$1/cmdline"
    case $command in 'nginx: master process '*) catches 0x8014a07 && return ;; esac
    complaint="expected a gunicorn arbiter or nginx master, found process $1 ($(cat "/proc/$1/comm"))"
    return 1
} 2>/dev/null

# Sets pid, or complaint. What is in the file is not shown: whoever may write to its directory could have put any
# file there. Its owner can make root signal only what he may signal himself.
read_pidfile() {
    complaint='expected a pidfile, found no regular file to read; is the server running?' owner=''
    [ -f "$1" ] && [ ! -h "$1" ] || return
    complaint='expected a pidfile, cannot read it'
    { # Descriptor 0 is the file that was opened, whatever the name leads to by now. If none was, owner stays empty
        [ "$1" -ef /proc/self/fd/0 ] && [ ! -h "$1" ] || return
        if [ -O /proc/self/fd/0 ]; then # One's own: nobody to protect, and no program to start, which would take time
            owner=0 # As if it were root's: it may name any process
            IFS= read -r pid
        else
            owner=$(stat -Lc %u /proc/self/fd/0) && pid=$(head -c 20)
        fi
    } 2>/dev/null <"$1"
    [ -n "$owner" ] || return # It was not opened, or stat failed
    complaint='expected a process id, found something else'
    case $pid in '' | 0* | *[!0-9]* | ???????????*) return 1 ;; esac # At most ten digits, and no octal number
    complaint='stale, there is no such process; is the server running?'
    status "$pid" || return
    [ "$owner" = 0 ] || user=$(stat -c %u "/proc/$pid")
    complaint="belongs to user $owner, but the process that it names to user ${user-}"
    [ "$owner" = 0 ] || [ "$owner" = "$user" ]
}
read_unit() {
    complaint='expected a systemd unit that runs, found no main process; see systemctl status'
    pid=$(systemctl show --property=MainPID -- "$1" 2>/dev/null) pid=${pid#*=}
    [ "${pid:-0}" != 0 ] && status "$pid"
}
# Tries $1, read_pidfile or read_unit, with $2. For a second: gunicorn removes its pidfile and writes it anew when it
# reloads, or has just begun to start.
find_arbiter() {
    given=$2
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        "$1" "$2" && is_arbiter "$pid" && arbiters="$arbiters $pid" && return
        sleep 0.1
    done
    refuse "$2: $complaint"
}

# Prints these processes and all below them. It calls itself, which changes its variables: none is used after that.
members() {
    for process; do
        echo "$process"
        for list in "/proc/$process/task"/*/children; do
            children='' && read -r children <"$list"
            members $children
        done
    done
} 2>/dev/null
# Prints which of the server's processes may not be looked into. Root without CAP_SYS_PTRACE can list fd, but follow
# neither what is in it nor root.
hidden() {
    for process in $(members $arbiters); do
        { [ -r "/proc/$process/fd" ] && [ -e "/proc/$process/root" ]; } || ! status "$process" ||
            echo "  process $process: to see its files takes its own user, or root with CAP_SYS_PTRACE"
    done
}

# Adds to files the rotated files of the logs that $1 names, one pattern a line. logrotate makes of app.log: app.log.1,
# app.log-20261130 or app.log.tmp; by "extension" app-20261130.log; by "olddir" these in a directory below, but .tmp.
find_rotated() {
    IFS=$newline && set -f # So that "for pattern in $1" splits at newlines, and expands nothing
    for pattern in $1; do
        directory=${pattern%/*} name=${pattern##*/} && set +f # The next loop expands its patterns
        for file in $directory/${name}[-._]*[0-9]* $directory/$name.tmp $directory/*/${name}[-._]*[0-9]* \
            $directory/${name%.*}$date.${name##*.} $directory/*/${name%.*}$date.${name##*.}; do
            case $file in *.gz | *.bz2 | *.xz | *.zst | *"$newline"*) continue ;; esac
            [ ! -f "$file" ] || [ -h "$file" ] || files=$files$file$newline
            [ ${#files} -lt 99999 ] || { say 'found too many files; name the rotated one as FILE'; exit 1; }
        done
    done && unset IFS && set +f
}
# The same for the logs that the server's processes write to: stat prints l-wx------ '/proc/7/fd/3' -> '/logs/app.log'.
# Some may still be open under the name of a rotated one. The first pattern for grep is a name, and then only what dates
# and numbers are made of: app.log.1 and app.log-20261130. The second is a date, and then an extension: app-20261130.log.
find_open() {
    opened=$(stat -c '%A %N' $(for process in $(members $arbiters); do echo "/proc/$process/fd"/*; done) |
        sed -n "s|^l-wx[^/]*/proc/[0-9]*/fd/[0-9]*' -> '\\(/.*\\)'\$|\\1|p" | sort -u)
    find_rotated "$(printf '%s\n' "$opened" | sed 's|[[*?]|[&]|g')" # Names, not patterns
    # The status is grep's: 1 if no name matches. More is a failure: then take no file, rather than half of them
    files=$files$(printf '%s\n' "$opened" |
        grep -E -e '[^-+.:_0-9TZ/][-+.:_0-9TZ]*[-._][0-9][-+.:_0-9TZ]*$' \
            -e '[-._][0-9]{4}[-+.:_0-9TZ]*[0-9]{4}\.[a-z]+$') || [ $? = 1 ] || files=''
} 2>/dev/null

# The kernel refuses a read lease on a file as long as anybody has it open for writing: F_SETLEASE in fcntl(2). It
# takes the file's owner, whom root becomes for that moment. Closing the file gives the lease back. Who opens the
# file for writing meanwhile waits for that, and the lease's holder gets SIGIO. (A pipe has none: an error.)
# Here twice, because a server may have only one of Perl and Python. Each looks at FILE ... once. Exit status 0: nobody
# writes, 100: somebody does, others: it cannot tell.
lease_perl='
use Fcntl; use Errno "EAGAIN";
$SIG{IO} = "IGNORE";
for (@ARGV) {
    my $opened = sysopen my $file, $_, O_RDONLY | O_NONBLOCK | O_NOFOLLOW;
    $> = (stat $file)[4] if $opened;
    next if $opened && fcntl $file, 1024, F_RDLCK;  # F_SETLEASE
    die "$_: $!\n" if $! != EAGAIN;
    print;
    exit 100;
} continue { $> = $<; }'
lease_python='
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
try:
    for path in sys.argv[1:]:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)) as file:
            os.seteuid(os.fstat(file.fileno()).st_uid)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        os.seteuid(os.getuid())
except BlockingIOError:
    print(path)
    sys.exit(100)'

# Prints the descriptors, as /proc/PID/fd/N, that write to FILE ...; and at last "/proc/version", which goes through the
# whole pipe: without it the look failed, and no descriptor does not mean nobody. Not by find, which may abort when a
# process ends while it looks (GNU find 4.10).
holders() {
    same=$(stat -L '-c-e ^%d:%i/' -- "$@") || return # Patterns for grep, as -e ^2049:17/
    printf '%s\n' /proc/[0-9]*/fd/* /proc/version |
        xargs stat -Lc '%d:%i%n' | # As 2049:17/proc/7/fd/3
        grep -e '/version$' $same |
        sed 's|^[^/]*||; s|/fd/|/fdinfo/|' |
        xargs grep -Els '^flags:.*[12]$|^Linux' | # O_WRONLY or O_RDWR; or /proc/version
        sed 's|/fdinfo/|/fd/|'
} 2>/dev/null
somebody_writes() {
    how=$(perl -e "$lease_perl" "$@" 2>&1)
    case $? in 0) return 1 ;; 100) return 0 ;; esac
    how=$(python3 -ISc "$lease_python" "$@" 2>&1)
    case $? in 0) return 1 ;; 100) return 0 ;; esac
    how="looked at /proc, as there are no leases (${how##*"$newline"})"
    # Twice: what is forked during the first look, with the file open, is there in the second.
    for _ in 1 2; do [ "$(holders "$@")" = /proc/version ] && [ -z "$(hidden)" ] || return 0; done
    return 1
}

# Whether process $1 is below an arbiter, handles the signal, and has the file open that gunicorn has for each worker,
# and that no program inherits which a worker starts. To others the signal may mean anything: Node.js, say, opens a
# debugger.
is_worker() {
    case $below in *"$newline$1$newline"*) ;; *) return 1 ;; esac
    status "$1" && catches 0x200 && ls -l "/proc/$1/fd" | grep -q '/wgunicorn-[^/]*$' # 0x200 is USR1
}

# Prints who writes to FILE ..., and signals it again if it is a worker: it may have missed the first signal when it
# was just starting.
signal_again() {
    below=$newline$(members $arbiters)$newline last=''
    for descriptor in $(holders "$@" | grep fd | head -n 20); do
        writer=${descriptor#/proc/} writer=${writer%%/*}
        if [ "$writer" != "$last" ]; then
            last=$writer note=', not signalled'
            is_worker "$writer" && kill -USR1 "$writer" && note=''
        fi
        echo "  process $writer ($(printable "$(cat "/proc/$writer/comm")")$note): $(printable "$(readlink "$descriptor")")"
    done
    hidden
} 2>/dev/null

# Sends SIGALRM to this script ($$) after 5 s. Runs in a subshell, which has another parent (the second field behind the
# name in its stat) if the script has ended: $$ may be another process then.
set_alarm() {
    trap 'kill $slept; exit' TERM
    sleep 5 & slept=$!
    wait $slept && read -r stat </proc/self/stat && set -- ${stat##*) } && [ "$2" = $$ ] && kill -ALRM $$
}

# Refuses what is no log among FILE ...
check_files() {
    for given; do
        case ${given##*/} in *.pid* | *pidfile*) refuse "$given: expected a log; for one more server say -p $given" ;; esac
        # In no directory that there is, it may be patterns: if it has a blank, * ? [ a quote or \ in it
        [ -d "${given%/*}" ] || case $given in
        *[[:space:]*?[\"\'\\]*) ;;
        *) refuse "$given: expected the path of a log, found no such directory" ;;
        esac
        # What is no regular file, or a link, is a log if it has rotated files
        [ -h "$given" ] || { [ -e "$given" ] && [ ! -f "$given" ]; } || continue
        known=$files && find_rotated "$given"
        [ "$files" != "$known" ] || refuse "$given: expected a log, found no regular file"
        files=$known # This only checks: find_files adds them, after the signal
    done
}

# Adds the rotated files of FILE ... to $files. A FILE may be patterns as in logrotate's configuration, with blanks
# between them and quotes.
find_files() {
    for given; do
        known=$files patterns=${given%"${given##*[![:space:]]}"} # Without the blanks at its end
        # xargs takes blanks and quotes as logrotate does
        [ -d "${patterns%/*}" ] || patterns=$(printf %s "$given" | xargs printf '%s\n')
        find_rotated "$patterns"
        [ "$files" != "$known" ] || [ ! -f "$given" ] || files=$files$given$newline
    done
}

# Waits until nobody writes to FILE ...; fails, and says who does, after $timeout seconds.
wait_until_closed() {
    start='' told=''
    while sleep 0.1; somebody_writes "$@"; do # At first the processors are for those who reopen.
        read -r now _ </proc/uptime # Since boot: no change of the clock makes the wait longer or shorter.
        now=${now%.*}${now#*.} && start=${start:-$now} told=${told:-$now} # In hundredths of seconds
        [ $((now - told)) -lt 100 ] || { told=$now && signal_again "$@" >/dev/null; }
        [ $((now - start)) -gt $((timeout * 100 + 100)) ] || continue # A second for who was just signalled again
        say "after $timeout s somebody still writes, or may: $(printable "$how"); do not compress or remove that file"
        signal_again "$@" >&2
        return 1
    done
}

# From here on: find the arbiters, check FILE ..., signal, find the rotated files, and wait until nobody writes to them.
timeout=40 arbiters='' given='' complaint='cannot open it' unit='' failed=2
# Whatever fails, the exit status is $failed, also of "exit 1" and "exit 2" above, and of a shell that cannot go on.
trap '[ $? = 0 ] || exit $failed' EXIT
# Should somebody put a pipe in the place of a pidfile, opening it would last for ever: an alarm ends it.
trap 'refuse "$given: $complaint"' ALRM
{ set_alarm; } >/dev/null 2>&1 3>&1 & # In braces, or dash would keep the caller's stdout open until the alarm
alarm=$!
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,/  2  /s/^# \{0,1\}//p' "$0" && exit ;; # The head of this file, to exit status 2
    --) shift && break ;;
    --*=*) option=${1%%=*} value=${1#*=} ;;
    -[ptu]?*) option=${1%"${1#-?}"} value=${1#-?} ;;
    -*) option=$1 value=${2-} && [ $# -gt 1 ] && shift ;;
    *) break ;;
    esac
    shift
    case $option in
    -p | --pidfile) find_arbiter read_pidfile "$value" ;;
    -u | --unit) find_arbiter read_unit "$value" && unit=$value ;;
    -t | --timeout) timeout=$value ;;
    *) refuse "unknown option: $option; see reopen.sh -h" ;;
    esac
done
case $timeout in '' | 0?* | *[!0-9]* | ??????*) refuse "-t: expected whole seconds, found '$timeout'" ;; esac
[ -n "$unit" ] || [ $# -gt 0 ] || refuse 'expected a PIDFILE; see reopen.sh -h'
[ -n "$unit" ] || { find_arbiter read_pidfile "$1" && shift; }
kill $alarm && trap '' ALRM # No alarm any more, also none that is under way
# Without sharedscripts, logrotate gives the log, and what it has become. Any other two files are two FILEs
name=${1-} name=${name##*/} files=''
if [ $# = 2 ] && [ -f "$2" ]; then
    case ${2##*/} in "$name"?* | "${name%.*}"$date*) files=$2$newline && shift 2 ;; esac
fi
check_files "$@"
kill -0 $arbiters 2>/dev/null || refuse "may not signal process$arbiters"
failed=1 && kill -USR1 $arbiters

find_files "$@"
[ -n "$files" ] || find_open
IFS=$newline && set -f && set -- $files; unset IFS; set +f
[ $# -gt 0 ] || { say 'signal sent, but found no rotated file; name it: reopen.sh PIDFILE FILE'; hidden >&2; exit 1; }
wait_until_closed "$@"
