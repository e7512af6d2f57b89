//! Small pictures of an hour: a place for each minute, the present one on the right, and a ground line, dotted where
//! nothing is known.

use std::fmt::Write;

use maud::{Markup, html};

use super::history::{MINUTES, Series, peak};

/// Of the drawing; the page stretches it.
const HEIGHT: f64 = 48.0;
const STEP: f64 = 4.0;
const WIDTH: f64 = STEP * MINUTES as f64;

/// A bar for each minute; with two series the first stands on the ground and the second on top of it. `title` is what
/// it shows, for who cannot see it.
pub(super) fn bars(title: &str, series: &[&Series]) -> Markup {
    let mut total = [None; MINUTES];
    for series in series {
        for (sum, value) in total.iter_mut().zip(series.iter()) {
            *sum = sum.map_or(*value, |sum| Some(sum + value.unwrap_or_default()));
        }
    }
    let top = top(&total);
    let mut base = [0.0; MINUTES];
    let mut shapes = Vec::new();
    for (series, class) in series.iter().zip(["first", "second"]) {
        let mut path = String::new();
        for (minute, value) in known(series).filter(|(_, value)| *value > 0.0) {
            // However little it is, it can be seen.
            let height = (value / top * HEIGHT).max(1.0);
            let low = HEIGHT - base[minute];
            let _ = write!(
                path,
                "M{:.1} {low:.1}v-{height:.1}h{:.1}v{height:.1}z",
                x(minute),
                STEP - 1.0
            );
            base[minute] += height;
        }
        shapes.push((class, path));
    }
    svg(title, &total, &shapes)
}

/// A filled line: how much of something there was.
pub(super) fn area(title: &str, series: &Series) -> Markup {
    let top = top(series);
    let Some((first, value)) = known(series).next() else {
        return svg(title, series, &[]);
    };
    let mut line = format!("M{:.1} {:.1}", x(first), y(value, top));
    for (minute, value) in known(series) {
        let _ = write!(line, "V{:.1}H{:.1}", y(value, top), x(minute + 1));
    }
    let shade = format!("{line}V{HEIGHT}H{:.1}z", x(first));
    svg(title, series, &[("shade", shade), ("line", line)])
}

/// A line where there are numbers in a row, a dash where one stands alone. `ran` is known where the program ran, with
/// something to measure or without.
pub(super) fn line(title: &str, series: &Series, ran: &Series) -> Markup {
    let top = peak(series).max(f64::MIN_POSITIVE);
    let (mut path, mut last) = (String::new(), None);
    for (minute, value) in known(series) {
        let follows = last.is_some_and(|last| last + 1 == minute);
        let (x, y) = (x(minute), y(value, top));
        let _ = if follows {
            write!(path, "L{:.1} {y:.1}", x + STEP / 2.0)
        } else {
            write!(path, "M{x:.1} {y:.1}h{:.1}", STEP - 1.0)
        };
        last = Some(minute);
    }
    svg(title, ran, &[("line", path)])
}

/// Draws the ground line, and on it these shapes: the class of each, and its path.
fn svg(title: &str, known_in: &Series, shapes: &[(&str, String)]) -> Markup {
    let began = known(known_in)
        .map(|(minute, _)| x(minute))
        .next()
        .unwrap_or(WIDTH);
    let before = format!("M0 {HEIGHT}H{began:.1}");
    let since = format!("M{began:.1} {HEIGHT}H{WIDTH}");
    html! {
        svg.plot viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(title) {
            path.before d=(before) {}
            path.since d=(since) {}
            @for (class, path) in shapes { path.(class) d=(path) {} }
        }
    }
}

fn known(series: &Series) -> impl Iterator<Item = (usize, f64)> {
    series
        .iter()
        .enumerate()
        .filter_map(|(minute, value)| value.map(|value| (minute, value)))
}

fn x(minute: usize) -> f64 {
    minute as f64 * STEP
}

fn y(value: f64, top: f64) -> f64 {
    // On the ground itself a line would hide it.
    HEIGHT - 1.0 - value / top * (HEIGHT - 2.0)
}

/// The highest touches the top; but few of something do not look like many.
fn top(series: &Series) -> f64 {
    peak(series).max(5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(known: &[(usize, f64)]) -> Series {
        let mut series = [None; MINUTES];
        for (minute, value) in known {
            series[*minute] = Some(*value);
        }
        series
    }

    fn path<'a>(svg: &'a str, class: &str) -> &'a str {
        let (_, rest) = svg
            .split_once(&format!(r#"<path class="{class}" d=""#))
            .unwrap();
        rest.split('"').next().unwrap()
    }

    #[test]
    fn what_is_not_known_is_not_drawn() {
        let nothing = series(&[]);
        for svg in [
            bars("none", &[&nothing, &nothing]),
            area("none", &nothing),
            line("none", &nothing, &nothing),
        ]
        .map(Markup::into_string)
        {
            assert_eq!(
                (path(&svg, "before"), path(&svg, "since")),
                ("M0 48H240.0", "M240.0 48H240")
            );
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        let one = area("one", &series(&[(59, 0.0)])).into_string();
        assert_eq!(
            (path(&one, "since"), path(&one, "line")),
            ("M236.0 48H240", "M236.0 47.0V47.0H240.0")
        );
    }

    #[test]
    fn bars_stand_on_each_other_and_the_highest_touches_the_top() {
        let (made, saved) = (
            series(&[(58, 6.0), (59, 0.0)]),
            series(&[(58, 2.0), (59, 4.0)]),
        );
        let svg = bars("<polls>", &[&made, &saved]).into_string();
        assert_eq!(path(&svg, "first"), "M232.0 48.0v-36.0h3.0v36.0z");
        assert_eq!(
            path(&svg, "second"),
            "M232.0 12.0v-12.0h3.0v12.0zM236.0 48.0v-24.0h3.0v24.0z"
        );
        assert!(svg.contains("&lt;polls&gt;"));
    }

    #[test]
    fn a_line_has_gaps_where_there_was_nothing() {
        let svg = line(
            "latency",
            &series(&[(0, 0.1), (1, 0.2), (5, 0.0)]),
            &series(&[(0, 1.0)]),
        )
        .into_string();
        assert_eq!(path(&svg, "line"), "M0.0 24.0h3.0L6.0 1.0M20.0 47.0h3.0");
    }
}
