//! The terminal of a `pty-req`: its type, its size and its modes (RFC 4254, 8).

use pty_process::Size;
use russh::Pty;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    tcgetattr, tcsetattr,
};
use std::os::fd::AsFd;

/// The longest name of a terminal type.
const MAX_TERM_BYTES: usize = 64;
/// "No such character" of SSH, and of the kernel (`_POSIX_VDISABLE`).
const NO_CHARACTER: u32 = 255;

pub(crate) struct Terminal {
    pub(crate) term: String,
    pub(crate) size: Size,
    modes: Vec<(Pty, u32)>,
}

impl Terminal {
    pub(crate) fn new(term: &str, size: Size, modes: &[(Pty, u32)]) -> Self {
        let is_valid = term.len() <= MAX_TERM_BYTES
            && term.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.+".contains(&c));
        let term = if is_valid { term } else { "dumb" }.to_owned();
        Self { term, size, modes: modes.to_vec() }
    }

    /// Best effort, as in OpenSSH: a mode that the kernel does not have changes nothing.
    pub(crate) fn apply_modes(&self, terminal: impl AsFd) {
        let Ok(mut termios) = tcgetattr(&terminal) else { return };
        for (mode, value) in &self.modes {
            apply(&mut termios, *mode, *value);
        }
        let _ = tcsetattr(&terminal, OptionalActions::Now, &termios);
    }
}

pub(crate) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Size {
    let clamp = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Size::new_with_pixel(clamp(rows), clamp(columns), clamp(width), clamp(height))
}

fn apply(termios: &mut Termios, mode: Pty, value: u32) {
    if let Some(index) = special(mode) {
        let code = if value == NO_CHARACTER { 0 } else { u8::try_from(value).unwrap_or(0) };
        termios.special_codes[index] = code;
        return;
    }
    let on = value != 0;
    if let Some(flag) = input(mode) {
        termios.input_modes.set(flag, on);
    } else if let Some(flag) = local(mode) {
        termios.local_modes.set(flag, on);
    } else if let Some(flag) = output(mode) {
        termios.output_modes.set(flag, on);
    } else if let Some((mask, flag)) = control(mode) {
        if on {
            termios.control_modes.remove(mask);
        }
        termios.control_modes.set(flag, on);
    } else if matches!(mode, Pty::TTY_OP_ISPEED) {
        let _ = termios.set_input_speed(value);
    } else if matches!(mode, Pty::TTY_OP_OSPEED) {
        let _ = termios.set_output_speed(value);
    }
}

fn special(mode: Pty) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Pty::VINTR => SpecialCodeIndex::VINTR,
        Pty::VQUIT => SpecialCodeIndex::VQUIT,
        Pty::VERASE => SpecialCodeIndex::VERASE,
        Pty::VKILL => SpecialCodeIndex::VKILL,
        Pty::VEOF => SpecialCodeIndex::VEOF,
        Pty::VEOL => SpecialCodeIndex::VEOL,
        Pty::VEOL2 => SpecialCodeIndex::VEOL2,
        Pty::VSTART => SpecialCodeIndex::VSTART,
        Pty::VSTOP => SpecialCodeIndex::VSTOP,
        Pty::VSUSP => SpecialCodeIndex::VSUSP,
        Pty::VREPRINT => SpecialCodeIndex::VREPRINT,
        Pty::VWERASE => SpecialCodeIndex::VWERASE,
        Pty::VLNEXT => SpecialCodeIndex::VLNEXT,
        Pty::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Pty) -> Option<InputModes> {
    Some(match mode {
        Pty::IGNPAR => InputModes::IGNPAR,
        Pty::PARMRK => InputModes::PARMRK,
        Pty::INPCK => InputModes::INPCK,
        Pty::ISTRIP => InputModes::ISTRIP,
        Pty::INLCR => InputModes::INLCR,
        Pty::IGNCR => InputModes::IGNCR,
        Pty::ICRNL => InputModes::ICRNL,
        Pty::IUCLC => InputModes::IUCLC,
        Pty::IXON => InputModes::IXON,
        Pty::IXANY => InputModes::IXANY,
        Pty::IXOFF => InputModes::IXOFF,
        Pty::IMAXBEL => InputModes::IMAXBEL,
        Pty::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local(mode: Pty) -> Option<LocalModes> {
    Some(match mode {
        Pty::ISIG => LocalModes::ISIG,
        Pty::ICANON => LocalModes::ICANON,
        Pty::XCASE => LocalModes::XCASE,
        Pty::ECHO => LocalModes::ECHO,
        Pty::ECHOE => LocalModes::ECHOE,
        Pty::ECHOK => LocalModes::ECHOK,
        Pty::ECHONL => LocalModes::ECHONL,
        Pty::NOFLSH => LocalModes::NOFLSH,
        Pty::TOSTOP => LocalModes::TOSTOP,
        Pty::IEXTEN => LocalModes::IEXTEN,
        Pty::ECHOCTL => LocalModes::ECHOCTL,
        Pty::ECHOKE => LocalModes::ECHOKE,
        Pty::PENDIN => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output(mode: Pty) -> Option<OutputModes> {
    Some(match mode {
        Pty::OPOST => OutputModes::OPOST,
        Pty::OLCUC => OutputModes::OLCUC,
        Pty::ONLCR => OutputModes::ONLCR,
        Pty::OCRNL => OutputModes::OCRNL,
        Pty::ONOCR => OutputModes::ONOCR,
        Pty::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}

/// A flag, and what is cleared when it is set.
fn control(mode: Pty) -> Option<(ControlModes, ControlModes)> {
    Some(match mode {
        Pty::CS7 => (ControlModes::CSIZE, ControlModes::CS7),
        Pty::CS8 => (ControlModes::CSIZE, ControlModes::CS8),
        Pty::PARENB => (ControlModes::PARENB, ControlModes::PARENB),
        Pty::PARODD => (ControlModes::PARODD, ControlModes::PARODD),
        _ => return None,
    })
}
