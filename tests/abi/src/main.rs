// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of hvrs' ABI from outside: /dev/mshv with right and wrong arguments, with guests of a few instructions, under
//! signals, kills and changes of memory. Needs root and the module loaded.
//!
//! usage: abi [--long] [--module PATH] [FILTER...]: with PATH also unloads and loads the module; --long: more rounds of what has
//!        many. FILTER: part of a case's name.
//!        abi --echo PORT: sends back what comes by UDP to this port of 127.0.0.1, for ever.

mod cases;
mod events;
mod guests;
mod hvrs;
mod run;
mod sys;
mod threads;
mod vm;

fn main() {
    let mut filters: Vec<String> = std::env::args().skip(1).collect();
    if let [first, port] = &filters[..] {
        if first == "--echo" {
            echo(port.parse().expect("a port"));
        }
    }
    let (mut module, mut long) = (None, false);
    while filters.first().is_some_and(|first| first.starts_with("--")) {
        match filters.remove(0).as_str() {
            "--long" => long = true,
            "--module" if !filters.is_empty() => module = Some(filters.remove(0)),
            other => panic!("{other}: not known, or without its value"),
        }
    }
    let count = run::run(&cases::all(module, long), &filters);
    println!("done {} {}", count.passed, count.failed);
    std::process::exit(i32::from(count.failed != 0));
}

/// The other side of a guest's debugger.
fn echo(port: u16) -> ! {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", port)).expect("a socket");
    let mut buffer = [0; 4096];
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}
