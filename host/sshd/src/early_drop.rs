//! OpenSSH's `MaxStartups`: somebody who holds connections open without authenticating cannot keep
//! a customer out who tries again.

/// From `begin` on, a new connection costs one with `rate` percent at first and ever more up to
/// always at `full`.
#[derive(Clone, Copy, Debug)]
pub struct EarlyDrop {
    begin: usize,
    rate: usize,
    full: usize,
}

impl EarlyDrop {
    /// `begin:rate:full`, as OpenSSH writes it.
    #[must_use]
    pub const fn new([begin, rate, full]: [usize; 3]) -> Self {
        Self { begin, rate, full }
    }

    /// How many of a hundred new connections cost one while so many wait: the figures of OpenSSH's
    /// `should_drop_connection`.
    fn percent(self, held: usize) -> u32 {
        let percent = if held < self.begin {
            0
        } else if held >= self.full {
            100
        } else {
            let rise = 100_usize.saturating_sub(self.rate);
            let above = held.saturating_sub(self.begin).saturating_mul(rise);
            let span = self.full.saturating_sub(self.begin);
            self.rate.saturating_add(above.checked_div(span).unwrap_or(rise))
        };
        u32::try_from(percent).unwrap_or(100)
    }

    /// Whether chance is against one of them. Without randomness it is, once there are many.
    #[must_use]
    pub fn strikes(self, held: usize) -> bool {
        self.strikes_by(held, random())
    }

    pub(crate) fn strikes_by(self, held: usize, random: u32) -> bool {
        random % 100 < self.percent(held)
    }
}

/// Zero without randomness.
pub(crate) fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of OpenSSH's `should_drop_connection` for `10:30:100`.
    #[test]
    fn connections_are_dropped_as_openssh_drops_them() {
        let drop = EarlyDrop::new([10, 30, 100]);
        for (held, percent) in [
            (0, 0),
            (9, 0),
            (10, 30),
            (11, 30),
            (19, 37),
            (50, 61),
            (55, 65),
            (99, 99),
            (100, 100),
            (usize::MAX, 100),
        ] {
            assert_eq!(drop.percent(held), percent, "{held}");
        }
        assert_eq!(EarlyDrop::new([1, 30, 1]).percent(1), 100);
    }
}
