// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest tells about its own crash through HV_X64_MSR_CRASH_P0 to CRASH_CTL.

/// HV_X64_MSR_CRASH_CTL: the guest reports a crash.
const NOTIFY: u64 = 1 << 63;
/// HV_X64_MSR_CRASH_CTL: P3 is the address, and P4 the length, of a text.
const MESSAGE: u64 = 1 << 62;
/// Longest text in bytes.
const MAX_TEXT: u64 = 4096;

/// A crash that the guest reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// HV_X64_MSR_CRASH_P0 to P4.
    pub parameters: [u64; 5],
    /// Guest physical address and length of a text.
    pub text: Option<(u64, usize)>,
}

/// What a write of `control` to HV_X64_MSR_CRASH_CTL reports, if it reports something.
pub fn decode(control: u64, parameters: [u64; 5]) -> Option<Crash> {
    let [.., address, length] = parameters;
    let has_text = control & MESSAGE != 0 && length != 0;
    (control & NOTIFY != 0).then_some(Crash {
        parameters,
        text: has_text.then_some((address, length.min(MAX_TEXT) as usize)),
    })
}

/// The report for hvrsctl's user. The text is the guest's, so what could command a terminal is escaped.
pub fn report(crash: &Crash, text: &[u8]) -> String {
    let parameters = crash.parameters.map(|p| format!("{p:#x}")).join(", ");
    let mut report = format!("the guest reports a crash: {parameters}");
    let text = String::from_utf8_lossy(text);
    for line in text.trim_end_matches(['\0', '\n']).lines() {
        report += "\n    ";
        report.extend(line.chars().flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        }));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported() {
        let parameters = [1, 2, 3, 0x1000, 5000];
        assert_eq!(decode(MESSAGE, parameters), None);
        let plain = decode(NOTIFY, parameters).unwrap();
        assert_eq!(plain.text, None);
        let told = decode(NOTIFY | MESSAGE, parameters).unwrap();
        assert_eq!(told.text, Some((0x1000, 4096)));
        assert_eq!(decode(NOTIFY | MESSAGE, [0; 5]).unwrap().text, None);
    }

    #[test]
    fn the_text_commands_no_terminal() {
        let crash = decode(NOTIFY, [0xdead, 0, 0, 0, 0]).unwrap();
        assert_eq!(
            report(&crash, b"<0>one\n\x1b[2Jtwo\n\0"),
            "the guest reports a crash: 0xdead, 0x0, 0x0, 0x0, 0x0\n    <0>one\n    \\u{1b}[2Jtwo"
        );
        assert_eq!(report(&crash, b"").lines().count(), 1);
    }
}
