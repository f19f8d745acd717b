//! What starts `ssh` and reads all that it prints does not wait for the `ProxyCommand` to say goodbye.

use crate::process::{GATEWAY, Process, Settings, start_proxy};
use crate::support::LONG;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::sync::mpsc::channel;

#[test]
fn a_proxy_lets_go_of_its_output_before_it_ends() {
    let mut gateway = Process::start(GATEWAY, &Settings::default());
    let mut proxy = start_proxy(&gateway.value("ticket"));
    // The client greets first.
    let mut input = proxy.stdin.take().unwrap();
    input.write_all(b"SSH-2.0-test\r\n").unwrap();
    let mut output = proxy.stdout.take().unwrap();
    let mut received = Vec::new();
    while !received.windows(8).any(|piece| piece == b"SSH-2.0-") {
        let mut piece = [0; 256];
        let count = output.read(&mut piece).unwrap();
        assert!(count > 0, "the pod greets: {}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&piece[..count]);
    }

    kill_process(Pid::from_child(&proxy), Signal::HUP).unwrap();
    let mut errors = proxy.stderr.take().unwrap();
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).unwrap();
        errors.read_to_end(&mut rest).unwrap();
        sender.send(()).unwrap();
    });
    ended.recv_timeout(LONG).expect("nobody has its output any more");
    assert!(proxy.try_wait().unwrap().is_none(), "it ends with its input");
    drop(input);
    assert!(proxy.wait().unwrap().success());
}
