//! The table, and in which rows the policy host is behind.

use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// The policy host first.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) better: Better,
    /// How many times better than each of the others the policy host is to be.
    pub(crate) goal: Option<f64>,
    pub(crate) values: [f64; 3],
}

impl Row {
    /// How many times better the policy host is; none beside a zero.
    fn ratio(&self, other: f64) -> Option<f64> {
        let [ours, ..] = self.values;
        let (of, to) = match self.better {
            Better::Less => (other, ours),
            Better::More => (ours, other),
        };
        (of > 0.0 && to > 0.0).then(|| of / to)
    }

    fn is_behind(&self, other: f64) -> bool {
        let [ours, ..] = self.values;
        match self.better {
            Better::Less => ours > other,
            Better::More => ours < other,
        }
    }
}

pub(crate) fn table(names: &[String; 3], rows: &[Row]) -> String {
    let [_, others @ ..] = names;
    let columns = [names.as_slice(), &others.each_ref().map(|name| format!("to {name}"))].concat();
    let mut text = line("", &columns, "goal");
    for row in rows {
        let [_, others @ ..] = row.values;
        let ratios = others.map(|other| row.ratio(other).map_or("–".to_owned(), times));
        let values = row.values.map(|value| formatted(value, row.unit));
        let goal = row.goal.map(times).unwrap_or_default();
        text += &line(&row.name, &[values.as_slice(), &ratios].concat(), &goal);
    }
    text += "\"to\": how many times better paygress is; below 1 it is behind\n";
    text + &shortfalls(names, rows)
}

fn line(name: &str, columns: &[String], goal: &str) -> String {
    let mut line = format!("{name:<40}");
    for column in columns {
        // Writing to a string does not fail.
        let _ = write!(line, " {column:>16}");
    }
    let _ = write!(line, " {goal:>6}");
    format!("{}\n", line.trim_end())
}

fn times(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// Where the policy host is behind, and where it misses its goal.
fn shortfalls(names: &[String; 3], rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let [_, others @ ..] = row.values;
        for (name, other) in names.iter().skip(1).zip(others) {
            let ratio = row.ratio(other);
            let shown = ratio.map_or("–".to_owned(), times);
            if row.is_behind(other) {
                let _ = writeln!(text, "behind {name}: {} ({shown})", row.name);
            } else if let (Some(goal), Some(ratio)) = (row.goal, ratio)
                && ratio < goal
            {
                let _ = writeln!(
                    text,
                    "goal missed beside {name}: {} ({shown} of {})",
                    row.name,
                    times(goal)
                );
            }
        }
    }
    if text.is_empty() {
        text += "behind in no row, and every goal is reached\n";
    }
    text
}

fn formatted(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Number => format!("{value:.0}"),
        Unit::Bytes => format!("{:.1} MiB", value / 1_048_576.0),
        Unit::Seconds if value < 1e-3 => format!("{:.1} µs", value * 1e6),
        Unit::Seconds => format!("{:.2} ms", value * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::{Better, Row, Unit, table};

    fn row(better: Better, unit: Unit, goal: Option<f64>, values: [f64; 3]) -> Row {
        Row { name: "a row".to_owned(), unit, better, goal, values }
    }

    #[test]
    fn it_names_where_the_policy_host_is_behind() {
        let names = ["ours", "b", "c"].map(str::to_owned);
        let rows = [
            row(Better::Less, Unit::Seconds, Some(5.0), [1e-4, 8e-4, 3e-4]),
            row(Better::More, Unit::Number, None, [10.0, 20.0, 5.0]),
            row(Better::Less, Unit::Number, None, [0.0, 0.0, 3.0]),
        ];
        let text = table(&names, &rows);
        assert!(text.contains("100.0 µs"), "{text}");
        assert!(text.contains("goal missed beside c: a row (3.00 of 5.00)"), "{text}");
        assert!(text.contains("behind b: a row (0.50)"), "{text}");
        assert_eq!(text.matches("behind ").count(), 1, "{text}");
    }
}
