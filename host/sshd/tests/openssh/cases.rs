//! What is compared: shell scripts. `$SSH` is a client with a key and `$TO` its destination, `$SFTP`
//! and `$SCP` likewise, `$CLIENT` is one without a key and `$KEYS` the directory of all keys. `$DIR`
//! is an empty directory there, `$HERE` one here, `$PORT` the server's, `$SLOW` that of a slow link
//! to it. `$CONNECT` prints the first bytes from a socket, `$AGENT` is the socket of a security key.

pub(crate) const CASES: [(&str, &str); 107] = [
    ("streams and exit code", "$SSH $TO 'echo out; echo err >&2; exit 42'"),
    ("exit code 255", "$SSH $TO 'exit 255'"),
    ("death by SIGKILL", "$SSH $TO 'kill -9 $$'"),
    ("death by SIGTERM", "$SSH $TO 'kill -TERM $$'"),
    ("a command that does not exist", "$SSH $TO nonexistent-command"),
    (
        "a command that is longer than the system takes",
        "x=$(head -c 70000 /dev/zero | tr '\\0' x); for option in -T -tt; do $SSH $option $TO echo $x $x; echo $?; done",
    ),
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
    (
        "a slow reader",
        "$SSH $TO 'seq 1 500000; exit 3' | (for i in 1 2 3 4 5 6 7 8 9 10; do \
      dd bs=128k count=1 iflag=fullblock 2> /dev/null; sleep 0.1; done; cat) | md5sum",
    ),
    ("a slow link out", "ssh -p $SLOW ${SSH#ssh} $TO 'seq 1 500000; exit 3' | md5sum"),
    ("a slow link in", "seq 1 300000 | ssh -p $SLOW ${SSH#ssh} $TO 'md5sum; exit 3'"),
    (
        "input for a program that reads late",
        "head -c 6000000 /dev/zero | $SSH $TO 'sleep 1.5; md5sum; exit 3'",
    ),
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
    (
        "a program of a broken connection",
        "$SSH $TO \"touch $DIR/in; while [ ! -e $DIR/go ]; do sleep 0.05; done; touch $DIR/done\" & \
      until [ -e $DIR/in ]; do sleep 0.05; done; { kill -9 $!; wait $!; } 2> /dev/null; sleep 0.3; touch $DIR/go; \
      sleep 1; ls $DIR",
    ),
    (
        "a nohup job of a broken connection",
        "$SSH $TO \"nohup sh -c 'touch $DIR/in; until [ -e $DIR/go ]; do sleep 0.05; done; \
      touch $DIR/done' > /dev/null 2>&1 & sleep 10\" & until [ -e $DIR/in ]; do sleep 0.05; done; \
      { kill -9 $!; wait $!; } 2> /dev/null; sleep 0.3; touch $DIR/go; sleep 1; ls $DIR",
    ),
    (
        "a nohup job of a broken terminal",
        "$SSH -tt $TO \"nohup sh -c 'touch $DIR/in; until [ -e $DIR/go ]; do sleep 0.05; done; \
      touch $DIR/done' > /dev/null 2>&1 & sleep 10\" & until [ -e $DIR/in ]; do sleep 0.05; done; \
      { kill -9 $!; wait $!; } 2> /dev/null; sleep 0.3; touch $DIR/go; sleep 1; ls $DIR",
    ),
    (
        "a broken terminal",
        "$SSH -tt $TO \"trap 'touch $DIR/hup; exit' HUP; touch $DIR/in; while :; do sleep 0.1; done\" & \
      until [ -e $DIR/in ]; do sleep 0.05; done; { kill -9 $!; wait $!; } 2> /dev/null; sleep 1; ls $DIR",
    ),
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
        "mkfifo $HERE/typed; exec 3<>$HERE/typed; script -qec \"stty -echo intr ^X columns 91 rows 31; \
      $SSH -tt $TO 'stty -a'\" /dev/null <&3",
    ),
    (
        "a window that changes",
        "export COMMAND=\"trap 'stty size; exit' WINCH; stty size; touch $DIR/in; while :; do sleep 0.1; done\"; \
      mkfifo $HERE/typed; exec 3<>$HERE/typed; script -qec 'stty columns 91 rows 31; \
      (until [ -e $DIR/in ]; do sleep 0.05; done; stty columns 132 rows 43 < /dev/tty) & \
      $SSH -tt $TO \"$COMMAND\"' /dev/null <&3",
    ),
    (
        "a window of one of two sessions that changes",
        "$SSH -M -S $HERE/c -f -N $TO; mkfifo $HERE/typed; exec 3<>$HERE/typed; \
      export START=\"$CONNECT resize 31 91 910 620\" CHANGED=\"$CONNECT resize 43 132 1320 860\"; \
      script -qec \"$START; $SSH -S $HERE/c -tt $TO '$CONNECT window $DIR/kept'\" /dev/null <&3 > $HERE/kept & \
      script -qec \"$START; (until [ -e $DIR/kept -a -e $DIR/in ]; do sleep 0.05; done; $CHANGED) & \
      $SSH -S $HERE/c -tt $TO '$CONNECT window $DIR/in'\" /dev/null <&3; touch $DIR/kept.end; wait; \
      cat $HERE/kept; $SSH -S $HERE/c -O exit $TO",
    ),
    (
        "an interrupt on a terminal",
        "(until [ -e $DIR/in ]; do sleep 0.05; done; printf '\\003'; sleep 1) | $SSH -tt $TO \
      \"trap 'echo caught; exit 9' INT; touch $DIR/in; while :; do sleep 0.1; done\"",
    ),
    ("a job on a terminal", "$SSH -tt $TO 'sleep 30 & echo now'"),
    ("end of input on a terminal", "timeout 3 $SSH -tt $TO cat < /dev/null"),
    ("an unknown subsystem", "$SSH -s $TO nothing"),
    ("X11", "DISPLAY=127.0.0.1:0 $SSH -X $TO 'echo $DISPLAY in' 2>&1 | grep -v -i xauth"),
    (
        "-L",
        "$SSH -M -S $HERE/c -f -N -L $HERE/l:127.0.0.1:$PORT $TO; $CONNECT $HERE/l; \
      $SSH -S $HERE/c -O exit $TO",
    ),
    (
        "-L to a Unix socket that does not exist",
        "$SSH -M -S $HERE/c -f -N -L $HERE/l:$DIR/none $TO; $CONNECT $HERE/l; \
      $SSH -S $HERE/c -O exit $TO",
    ),
    (
        "-D",
        "port=$($CONNECT free); $SSH -M -S $HERE/c -f -N -D 127.0.0.1:$port $TO; \
      $CONNECT $port $PORT; $SSH -S $HERE/c -O exit $TO",
    ),
    ("ProxyJump", "$SSH -o \"ProxyCommand=$SSH -W %h:%p $TO\" $TO 'echo in; exit 4'"),
    ("-W", "$SSH -W 127.0.0.1:$PORT $TO < /dev/null | head -c 8"),
    ("-W where nobody listens", "$SSH -W 127.0.0.1:1 $TO"),
    ("-W to a name that does not exist", "$SSH -W none.invalid:1 $TO"),
    ("-R", "$SSH -R 0:127.0.0.1:1 $TO true 2>&1 | sed 's/port [0-9]*/port N/'"),
    (
        "-R on a Unix socket",
        "$SSH -R $DIR/r:127.0.0.1:$PORT $TO \"stat -c %a $DIR/r; $CONNECT $DIR/r\"",
    ),
    (
        "-R on a port that is taken",
        "$SSH -o ExitOnForwardFailure=yes -R $PORT:127.0.0.1:1 $TO true",
    ),
    ("-A without an agent", "unset SSH_AUTH_SOCK; $SSH -A $TO 'echo ${SSH_AUTH_SOCK:-none}'"),
    (
        "-A",
        "eval $(ssh-agent -s) > /dev/null; ssh-add -q $KEYS/key; $SSH -A $TO \
      'ssh-add -l | cut -d\" \" -f1,3-; [ -S $SSH_AUTH_SOCK ]; echo $?'; kill $SSH_AGENT_PID",
    ),
    (
        "keep-alives of the client",
        "$SSH -o ServerAliveInterval=1 -o ServerAliveCountMax=3 $TO 'sleep 3.5; echo in'",
    ),
    (
        "a client that is suspended",
        "$SSH $TO 'sleep 1; seq 1 100' > $HERE/out & kill -STOP $!; sleep 2; kill -CONT $!; \
      wait $!; echo $?; md5sum < $HERE/out",
    ),
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
        "for kex in curve25519-sha256 ecdh-sha2-nistp256 diffie-hellman-group14-sha256; do \
      $SSH -o KexAlgorithms=$kex $TO echo $kex; done",
    ),
    (
        "slow key exchanges",
        "for kex in diffie-hellman-group16-sha512 diffie-hellman-group18-sha512 \
      diffie-hellman-group-exchange-sha256; do $SSH -o KexAlgorithms=$kex $TO echo $kex; done",
    ),
    (
        "hybrid key exchange of OpenSSH 9",
        "$SSH -o KexAlgorithms=sntrup761x25519-sha512@openssh.com $TO echo in",
    ),
    (
        "keys of all kinds",
        "for key in key ecdsa-b256 ecdsa-b384 ecdsa-b521 rsa-b2048; do $CLIENT -i $KEYS/$key $TO \
      echo $key; done",
    ),
    (
        "signatures of an RSA key",
        "for kind in rsa-sha2-256 rsa-sha2-512 ssh-rsa; do $CLIENT -i $KEYS/rsa-b2048 \
      -o PubkeyAcceptedAlgorithms=$kind $TO echo $kind; done",
    ),
    (
        "security keys",
        "export SSH_AUTH_SOCK=$AGENT; for key in sk-ed25519 sk-ecdsa; do \
      $CLIENT -i $KEYS/$key.pub $TO echo $key; done",
    ),
    (
        "a security key that nobody has touched",
        "SSH_AUTH_SOCK=$AGENT $CLIENT -i $KEYS/sk-untouched.pub $TO echo in",
    ),
    (
        "five wrong keys, then the right one",
        "$CLIENT $(printf -- '-i %s ' $KEYS/wrong[1-5]) -i $KEYS/key $TO 'echo in'",
    ),
    (
        "seven wrong keys",
        "$CLIENT $(printf -- '-i %s ' $KEYS/wrong[1-7]) -i $KEYS/key $TO 'echo in'",
    ),
    (
        "host keys of all kinds",
        "for kind in ssh-ed25519 ecdsa-sha2-nistp256 rsa-sha2-256 rsa-sha2-512 ssh-rsa; do \
      ssh -o UserKnownHostsFile=$HERE/$kind -o HostKeyAlgorithms=$kind ${SSH#ssh} $TO echo $kind; done; \
      cut -d' ' -f2 $HERE/ssh-* $HERE/e* $HERE/r*",
    ),
    (
        "host keys that a client asks for",
        "for i in 1 2; do $SSH -o UpdateHostKeys=yes $TO 'sleep 0.5'; done; cut -d' ' -f2 $HERE/hosts | sort",
    ),
    (
        "IPv6",
        "$SSH $USER@::1 'set -- $SSH_CONNECTION; echo $# $1 $3 $4; set -- $SSH_CLIENT; echo $# $1 $3'",
    ),
    (
        "the password",
        "sshpass -e ssh -o BatchMode=no -o PreferredAuthentications=password ${CLIENT#ssh} $TO 'echo in'",
    ),
    (
        "the password by keyboard-interactive",
        "sshpass -e ssh -o BatchMode=no -o PreferredAuthentications=keyboard-interactive ${CLIENT#ssh} \
      $TO 'echo in'",
    ),
    (
        "a wrong password",
        "export SSHPASS=wrong; for method in password keyboard-interactive; do sshpass -e ssh -o BatchMode=no \
      -o NumberOfPasswordPrompts=1 -o PreferredAuthentications=$method ${CLIENT#ssh} $TO true; done",
    ),
    ("a wrong key", "$WRONG $TO true"),
    ("a user that does not exist", "$SSH nobody-here@127.0.0.1 true"),
    (
        "sessions over one connection",
        "$SSH -M -S $HERE/c -f -N $TO; for i in 1 2 3 4 5; do $SSH -S $HERE/c $TO \
      \"echo $i; exit $i\"; echo $?; done; $SSH -S $HERE/c -O exit $TO",
    ),
    (
        "twenty commands over one connection",
        "$SSH -M -S $HERE/c -f -N $TO; for i in $(seq 20); do $SSH -S $HERE/c $TO \"echo $i\"; done; \
      $SSH -S $HERE/c -O exit $TO",
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
        "scp by both protocols",
        "cd $HERE; mkdir -p 'a b'; seq 1 100000 > \"a b/f\"; touch 'a b/empty'; for protocol in -s -O; do \
      $SCP $protocol -rp 'a b' $TO:$DIR/up$protocol; $SCP $protocol -rp $TO:$DIR/up$protocol back; \
      diff -r 'a b' back && echo same; rm -r back; $SCP $protocol $TO:$DIR/none .; echo $?; done",
    ),
    (
        "scp from the home of a user",
        "echo content > $DIR/f; cd $HERE; for user in $USER none-here; do \
      $SCP -s \"$TO:~$user/../../../../../../../..$DIR/f\" got; echo $?; done; cat got",
    ),
    (
        "a copy of a file onto itself",
        "echo content > $DIR/f; for target in f g; do \
      printf \"cd $DIR\ncp f $target\n\" | $SFTP -b - $TO; echo $?; done; ls $DIR",
    ),
    (
        "sshfs",
        "mkdir $HERE/m; cd $HERE/m; sshfs -o \"ssh_command=$SSH\" $TO:$DIR $HERE/m; cd $HERE/m; seq 1 100000 > f; \
      mkdir d; mv f d/g; ln -s g d/s; chmod 700 d; ls -lR | cut -c1-10; md5sum d/s; cd /; \
      fusermount3 -u $HERE/m; ls -R $DIR",
    ),
    (
        "rsync",
        "cd $HERE; mkdir up; seq 1 100000 > up/f; ln -s f up/s; rsync -a -e \"$SSH\" up/ $TO:$DIR/; \
      seq 1 110000 > up/f; rsync -a --checksum -e \"$SSH\" up/ $TO:$DIR/; \
      rsync -a -e \"$SSH\" $TO:$DIR/ down; diff -r up down && readlink down/s",
    ),
    (
        "refusals of sftp",
        "cd $HERE; for line in 'get none' 'ls none' 'rm none' 'mkdir .' 'rmdir none' 'cd none' \
      'rename none x' 'ln none x' 'put none' 'chmod 600 none' 'get /root' 'put f /none/f' 'rmdir /'; do \
      echo \"$line\" | $SFTP -b - $TO; echo $?; done",
    ),
    (
        "names that are not UTF-8",
        "cd $HERE; n=$(printf '\\351'); echo content > f; printf \"cd $DIR\nput f $n\nls -1\nls -ln\nrename $n x$n\n\
      get x$n got\nln -s x$n s$n\nchmod 600 x$n\nmkdir d$n\nls\nrename x$n d$n/y$n\nls -1 d$n\ncd d$n\npwd\nrm y$n\n\
      cd ..\nrmdir d$n\nls -1\n\" | $SFTP -b - $TO | sed 's/[0-9][0-9]:[0-9][0-9]/TIME/'; cat got; \
      ls $DIR | od -c; readlink $DIR/s$n | od -c",
    ),
    (
        "a key with a command",
        "for to in \"$TO echo a  'b'\" \"-T $TO\" \"-s $TO sftp\"; do echo in | \
      $CLIENT -i $KEYS/with-command $to; echo $?; done",
    ),
    (
        "a key for sftp only",
        "cd $HERE; echo content > f; sftp=\"${SFTP%% *} -i $KEYS/with-sftp ${SFTP#* }\"; \
      printf \"put f $DIR/f\nls -1 $DIR\n\" | $sftp -o IdentityFile=none -b - $TO; cat $DIR/f; \
      for command in '' ls; do $CLIENT -i $KEYS/with-sftp -T $TO $command; echo $?; done",
    ),
    (
        "terminals of keys with options",
        "for key in restrict pty no-pty no-forwarding; do \
      $CLIENT -i $KEYS/with-$key -tt $TO 'tty | tr -d 0-9'; echo $key $?; done",
    ),
    (
        "agents of keys with options",
        "eval $(ssh-agent -s) > /dev/null; for key in restrict pty no-pty no-forwarding; do \
      $CLIENT -A -i $KEYS/with-$key $TO '[ -S \"$SSH_AUTH_SOCK\" ]; echo $?'; done; kill $SSH_AGENT_PID",
    ),
    (
        "forwarding of keys with options",
        "for key in restrict pty no-pty no-forwarding; do K=\"$CLIENT -i $KEYS/with-$key\"; echo $key; \
      $K -W 127.0.0.1:$PORT $TO < /dev/null 2> $HERE/error | head -c 8; echo; sed 's/prohibited: .*/prohibited/' $HERE/error; \
      $K -R 0:127.0.0.1:1 -R $DIR/$key:127.0.0.1:1 $TO true 2>&1 | sed 's/port [0-9]* for/port N for/'; \
      ls $DIR; done",
    ),
    (
        "addresses of keys with options",
        "for key in from from-pattern from-mistake from-spelling; do for address in 127.0.0.1 127.0.0.2 127.0.0.33; do \
      $CLIENT -b $address -i $KEYS/with-$key $TO echo $key $address; done; done",
    ),
    (
        "ends and variables of keys with options",
        "for key in environment expired unexpired; do $CLIENT -i $KEYS/with-$key $TO \"echo $key \\$OWN\"; done",
    ),
    (
        "ports that a key may connect to",
        "K=\"$CLIENT -i $KEYS/with-open\"; for to in localhost:$PORT 127.0.0.1:$PORT [::1]:$PORT; do \
      $K -W $to $TO < /dev/null 2> $HERE/error | head -c 8; echo; sed 's/prohibited: .*/prohibited/' $HERE/error; done; \
      $K -R 0:127.0.0.1:1 $TO true 2>&1 | sed 's/port [0-9]* for/port N for/'",
    ),
    (
        "ports that a key may listen on",
        "K=\"$CLIENT -i $KEYS/with-listen\"; for from in 0 LocalHost:0 127.0.0.1:0 '*:0' $DIR/s; do echo $from; \
      $K -R \"$from:127.0.0.1:1\" $TO true 2>&1 | sed 's/port [0-9]* for/port N for/'; done; \
      $K -W 127.0.0.1:$PORT $TO < /dev/null | head -c 8",
    ),
    (
        "options that are unknown or malformed",
        "for key in unknown malformed twice; do $CLIENT -i $KEYS/with-$key $TO echo $key; done",
    ),
    ("two hundred connections that send nothing", "$CONNECT crowd 200 $PORT"),
    (
        "a login beside a hundred connections that send nothing",
        "$CONNECT beside 100 $PORT $SSH $TO echo in",
    ),
];

/// Cases in which the two servers differ, and why.
pub(crate) const DIFFERENCES: [(&str, &str); 11] = [
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
        "a security key that nobody has touched",
        "russh verifies the signature and does not pass on its flags, so a touch cannot be required",
    ),
    ("seven wrong keys", "russh has a text and a code of its own for too many attempts"),
    (
        "host keys that a client asks for",
        "russh cannot send hostkeys-00@openssh.com: a client knows the host key that it has seen",
    ),
    (
        "slow key exchanges",
        "one in a group of more than 2048 bits costs the server up to 0.4 s before any login; curves and group14 are offered",
    ),
    (
        "hybrid key exchange of OpenSSH 9",
        "russh has that of OpenSSH 10, mlkem768x25519-sha256; others fall back to curve25519",
    ),
    (
        "a login beside a hundred connections that send nothing",
        "sshd refuses newcomers, all of them at MaxStartups; here one has the place of another that has not logged in, so that the owner gets in",
    ),
];

/// Why the two servers differ in this case; none if they are to be equal.
pub(crate) fn difference(name: &str) -> Option<&'static str> {
    DIFFERENCES.iter().find(|(case, _)| *case == name).map(|(_, reason)| *reason)
}
