//! What is compared: shell scripts. `$SSH` is a client with a key and `$TO` its destination, `$SFTP`
//! and `$SCP` likewise, `$DIR` an empty directory there, `$HERE` one here, `$PORT` the server's.

pub(crate) const CASES: [(&str, &str); 56] = [
    ("streams and exit code", "$SSH $TO 'echo out; echo err >&2; exit 42'"),
    ("exit code 255", "$SSH $TO 'exit 255'"),
    ("death by SIGKILL", "$SSH $TO 'kill -9 $$'"),
    ("death by SIGTERM", "$SSH $TO 'kill -TERM $$'"),
    ("a command that does not exist", "$SSH $TO nonexistent-command"),
    ("quotes and spaces", r#"$SSH $TO echo "'a  b'" '"$HOME"' '*' \\\\ '$((1+1))'"#),
    ("a command of several lines", "$SSH $TO 'echo 1\necho 2\nexit 3'"),
    (
        "bytes that are not UTF-8",
        "$SSH $TO \"$(printf 'printf \\\\351 | od -c; echo \\351')\" | od -c",
    ),
    ("standard input", "printf 'a\\nb' | $SSH $TO 'cat; echo end'"),
    ("no standard input", "$SSH -n $TO 'cat; echo end'"),
    ("300 kB in", "head -c 300000 /dev/zero | $SSH $TO md5sum"),
    ("8 MB in", "head -c 8000000 /dev/zero | $SSH $TO md5sum"),
    ("3.4 MB out", "$SSH $TO 'seq 1 500000' | md5sum"),
    ("both ways", "seq 1 300000 | $SSH $TO cat | md5sum"),
    ("input that nobody reads", "head -c 5000000 /dev/zero | $SSH $TO 'exit 3'"),
    (
        "a program that closes its input",
        "head -c 5000000 /dev/zero | $SSH $TO 'exec <&-; sleep 0.3; echo in'",
    ),
    (
        "end of output before the end",
        "$SSH $TO \"exec >&- 2>&-; sleep 1; touch $DIR/end\" | (cat; [ -e $DIR/end ] && echo after || echo before)",
    ),
    ("a program that closes its output", "$SSH $TO 'exec >&- 2>&-; sleep 0.2; exit 5'"),
    (
        "a reader that stops",
        "(timeout 4 $SSH $TO 'yes'; [ $? = 124 ] && echo waits >&2) | head -n 1",
    ),
    ("a late reader", "$SSH $TO 'seq 1 330000' | (sleep 1; md5sum)"),
    ("output after the end", "$SSH $TO '(sleep 0.3; echo later) & echo now'"),
    ("a job without output", "$SSH $TO 'sleep 30 > /dev/null 2>&1 < /dev/null & echo now'"),
    ("a script as input of the login shell", "echo 'echo $0; exit 3' | $SSH -T $TO"),
    ("directory and umask", "$SSH $TO 'pwd; umask'"),
    ("user", "$SSH $TO 'echo $USER $LOGNAME $HOME $SHELL; id -u'"),
    ("names of variables", "$SSH $TO 'env -u _ -u SHLVL -u PWD -u OLDPWD' | cut -d= -f1 | sort"),
    ("search path", "$SSH $TO 'echo $PATH'"),
    (
        "locale",
        "LANG=C.UTF-8 LC_X=1 FOO=2 $SSH -o 'SendEnv=LANG LC_X FOO' $TO 'echo $LANG $LC_X $FOO'",
    ),
    (
        "SSH_CONNECTION",
        "$SSH $TO 'set -- $SSH_CONNECTION; echo $# $1 $3 $4; set -- $SSH_CLIENT; echo $# $1 $3'",
    ),
    ("SSH_TTY", "$SSH -tt $TO '[ $(tty) = $SSH_TTY ]; echo $?; echo $TERM'"),
    ("exit code on a terminal", "$SSH -tt $TO 'echo out; echo err >&2; exit 7'"),
    ("much on a terminal", "$SSH -tt $TO 'seq 1 20000' | md5sum"),
    (
        "terminal modes",
        "script -qec \"stty -echo intr ^X columns 91 rows 31; $SSH -tt $TO 'stty -a'\" /dev/null",
    ),
    ("a job on a terminal", "$SSH -tt $TO 'sleep 30 & echo now'"),
    ("end of input on a terminal", "timeout 3 $SSH -tt $TO cat < /dev/null"),
    ("an unknown subsystem", "$SSH -s $TO nothing"),
    ("X11", "DISPLAY=127.0.0.1:0 $SSH -X $TO 'echo $DISPLAY in' 2>&1 | grep -v -i xauth"),
    ("-W", "$SSH -W 127.0.0.1:$PORT $TO < /dev/null | head -c 8"),
    ("-W where nobody listens", "$SSH -W 127.0.0.1:1 $TO"),
    ("-W to a name that does not exist", "$SSH -W none.invalid:1 $TO"),
    ("-R", "$SSH -R 0:127.0.0.1:1 $TO true 2>&1 | sed 's/port [0-9]*/port N/'"),
    (
        "-R on a port that is taken",
        "$SSH -o ExitOnForwardFailure=yes -R $PORT:127.0.0.1:1 $TO true",
    ),
    ("-A without an agent", "unset SSH_AUTH_SOCK; $SSH -A $TO 'echo ${SSH_AUTH_SOCK:-none}'"),
    ("keep-alives of the client", "$SSH -o ServerAliveInterval=1 $TO 'sleep 2.5; echo in'"),
    ("new keys on the way", "$SSH -o RekeyLimit=100K $TO 'seq 1 200000' | md5sum"),
    ("new keys on the way in", "seq 1 200000 | $SSH -o RekeyLimit=100K $TO md5sum"),
    ("compression", "$SSH -C $TO 'seq 1 1000' | md5sum"),
    (
        "ciphers",
        "for cipher in chacha20-poly1305@openssh.com aes128-ctr aes256-ctr aes128-gcm@openssh.com \
      aes256-gcm@openssh.com; do $SSH -c $cipher $TO echo $cipher; done",
    ),
    (
        "key exchanges",
        "for kex in curve25519-sha256 ecdh-sha2-nistp256 diffie-hellman-group16-sha512; do \
      $SSH -o KexAlgorithms=$kex $TO echo $kex; done",
    ),
    (
        "hybrid key exchange of OpenSSH 9",
        "$SSH -o KexAlgorithms=sntrup761x25519-sha512@openssh.com $TO echo in",
    ),
    ("a wrong key", "$WRONG $TO true"),
    ("a user that does not exist", "$SSH nobody-here@127.0.0.1 true"),
    (
        "sessions over one connection",
        "$SSH -M -S $HERE/c -f -N $TO; for i in 1 2 3 4 5; do $SSH -S $HERE/c $TO \
      \"echo $i; exit $i\"; echo $?; done; $SSH -S $HERE/c -O exit $TO",
    ),
    (
        "a reader that stops, over one connection",
        "$SSH -M -S $HERE/d -f -N $TO; timeout 5 $SSH -S $HERE/d $TO yes | \
      head -n 1; $SSH -S $HERE/d -O exit $TO",
    ),
    (
        "sftp",
        "cd $HERE; printf 'x\\n' > f; chmod 640 f; printf 'cd %s\\nput -p f\\nln -s f s\\nln f h\\nmkdir d\\nchmod 700 d\\n\
      ls -1\\nls -ln\\nrename h i\\nget i\\nrm i\\nrmdir d\\nls\\n' $DIR | $SFTP -b - $TO | sed 's/[0-9][0-9]:[0-9][0-9]/TIME/'; cat i",
    ),
    (
        "refusals of sftp",
        "cd $HERE; for line in 'get none' 'ls none' 'rm none' 'mkdir .' 'rmdir none' 'cd none' \
      'rename none x' 'ln none x' 'put none' 'chmod 600 none' 'get /root' 'put f /none/f' 'rmdir /'; do \
      echo \"$line\" | $SFTP -b - $TO; echo $?; done",
    ),
];

/// Cases in which the two servers differ, and why.
pub(crate) const DIFFERENCES: [(&str, &str); 6] = [
    (
        "a reader that stops",
        "russh does not pass on eow@openssh.com, by which a client says so; the program waits until the client ends",
    ),
    (
        "end of output before the end",
        "russh answers a client's CLOSE at once, so that no exit code could follow: the end of output waits for it",
    ),
    ("search path", "an image's own PATH is kept; sshd sets one of its own"),
    ("-W where nobody listens", "russh has one text for all reasons"),
    ("-W to a name that does not exist", "russh has one text for all reasons"),
    (
        "hybrid key exchange of OpenSSH 9",
        "russh has that of OpenSSH 10, mlkem768x25519-sha256; others fall back to curve25519",
    ),
];
