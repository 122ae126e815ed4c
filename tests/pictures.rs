//! Pictures: from numbers to pixels, grids, PNG files, terminals and charts.

use imagen::array::Array;
use imagen::picture::terminal::{Colours, preview};
use imagen::picture::{
    Chart, Curve, Diagram, Layout, Picture, PictureError, Text, Tint, encode, frames, grid, heatmap, read, strip, write,
};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

fn grey(width: usize, height: usize, pixels: &[u8]) -> Picture {
    Picture { width, height, channels: 1, pixels: pixels.to_vec() }
}

fn text(pairs: &[(&str, &str)]) -> Text {
    pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn values_become_bytes_clipped_and_rounded() {
    // (v + 1) * 127.5: halves go up, what is beyond is clipped.
    let half = (100.5 / 127.5) - 1.0;
    let values = [-1.0, 0.0, 1.0, -7.0, 7.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, half];
    let picture = Picture::from_values(&values, [1, 1, 9]);
    assert_eq!(picture.pixels, [0, 128, 255, 0, 255, 0, 255, 0, 101]);
}

#[test]
fn every_byte_survives_the_way_through_values() {
    let bytes: Vec<u8> = (0..=255).collect();
    let values: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 127.5 - 1.0).collect();
    assert_eq!(Picture::from_values(&values, [1, 16, 16]).pixels, bytes);
}

#[test]
fn channels_are_interleaved_and_batches_are_split() {
    // Two images [2, 3, 1, 2]: planes of red, green and blue.
    let values = [-1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0f32];
    let pictures = Picture::from_array(&Array::from_vec([2, 3, 1, 2], values.to_vec()));
    assert_eq!(pictures.len(), 2);
    assert_eq!(pictures[0].pixels, [0, 255, 0, 255, 0, 0]);
    assert_eq!(pictures[1].pixels, [255; 6]);
    assert_eq!(Picture::from_array(&Array::from_vec([3, 1, 2], values[..6].to_vec())), pictures[..1]);
}

#[test]
#[should_panic(expected = "1 or 3 channels, not 2")]
fn two_channels_are_not_a_picture() {
    Picture::from_values(&[0.0; 8], [2, 2, 2]);
}

#[test]
fn a_grid_puts_pictures_row_by_row_with_gaps() {
    let pictures = [grey(2, 1, &[1, 2]), grey(2, 1, &[3, 4]), grey(2, 1, &[5, 6])];
    let sheet = grid(&pictures, Layout { columns: 2, gap: 1, background: 9, enlarge: 1 });
    #[rustfmt::skip]
    let expected = [
        9, 9, 9, 9, 9, 9, 9,
        9, 1, 2, 9, 3, 4, 9,
        9, 9, 9, 9, 9, 9, 9,
        9, 5, 6, 9, 9, 9, 9,
        9, 9, 9, 9, 9, 9, 9,
    ];
    assert_eq!(sheet, grey(7, 5, &expected));
}

#[test]
fn enlarging_makes_squares() {
    let enlarged = grid(&[grey(2, 1, &[1, 2])], Layout { columns: 1, gap: 0, background: 0, enlarge: 3 });
    assert_eq!(enlarged, grey(6, 3, &[1, 1, 1, 2, 2, 2].repeat(3)));
    let colour = Picture { width: 1, height: 1, channels: 3, pixels: vec![1, 2, 3] };
    assert_eq!(colour.enlarged(2).pixels, [1, 2, 3].repeat(4));
}

#[test]
#[should_panic(expected = "picture 1 differs")]
fn a_grid_refuses_pictures_of_two_sizes() {
    grid(&[grey(2, 1, &[1, 2]), grey(1, 2, &[1, 2])], Layout::new(2));
}

#[test]
fn a_strip_has_x_t_above_and_x_hat_0_below() {
    let layout = Layout { columns: 1, gap: 0, background: 0, enlarge: 1 };
    let one = |shade| grey(1, 1, &[shade]);
    assert_eq!(strip(&[one(1), one(2), one(3)], &[one(4), one(5), one(6)], layout), grey(3, 2, &[1, 2, 3, 4, 5, 6]));
}

#[test]
fn frames_are_evenly_spread_from_first_to_last() {
    assert_eq!(frames(50, 8), [0, 7, 14, 21, 28, 35, 42, 49]);
    assert_eq!(frames(3, 8), [0, 1, 2]);
    assert_eq!((frames(9, 1), frames(9, 0), frames(0, 4)), (vec![8], vec![], vec![]));
}

proptest! {
    #[test]
    fn frames_rise_and_hold_both_ends(steps in 2usize..2000, shown in 2usize..40) {
        let frames = frames(steps, shown);
        prop_assert_eq!(frames.len(), steps.min(shown));
        prop_assert!(frames.is_sorted_by(|a, b| a < b));
        prop_assert_eq!((frames[0], frames[frames.len() - 1]), (0, steps - 1));
    }

    #[test]
    fn a_png_brings_back_pixels_and_texts(
        size in (1usize..9, 1usize..9, prop::bool::ANY),
        pixels in prop::collection::vec(any::<u8>(), 192..=192),
        key in "[!-~]([ -~]{0,76}[!-~])?",
        values in prop::collection::vec("\\PC*|[a-zäöü\n]*|.*", 2..=2),
    ) {
        let (width, height, colour) = size;
        let channels = if colour { 3 } else { 1 };
        let picture = Picture { width, height, channels, pixels: pixels[..width * height * channels].to_vec() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let values: Vec<String> = values.iter().map(|value| value.replace('\0', "")).collect();
        let text = Text::from([(key, values[0].clone()), ("prompt é".into(), values[1].clone())]);
        write(&path, &picture, &text).unwrap();
        prop_assert_eq!(read(&path).unwrap(), (picture, text));
    }
}

#[test]
fn texts_are_stored_as_the_specification_asks() {
    let picture = grey(1, 1, &[7]);
    let bytes = |value| encode(&picture, &text(&[("prompt", value)])).unwrap();
    let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    // Latin-1 is one byte a character; all else is UTF-8 in an iTXt chunk.
    assert!(holds(&bytes("caf\u{e9}"), b"tEXtprompt\0caf\xe9"));
    assert!(holds(&bytes("手書きの七"), "iTXtprompt\0\0\0\0\0手書きの七".as_bytes()));
    for (key, value) in [("", "a"), (&*"k".repeat(80), "a"), ("钥", "a"), (" a", "a"), ("a\nb", "a"), ("a", "b\0c")] {
        let error = encode(&picture, &text(&[(key, value)])).unwrap_err();
        assert!(matches!(&error, PictureError::Text { key: k, .. } if k == key), "{error}");
    }
}

#[test]
fn a_picture_without_pixels_is_an_error() {
    let error = encode(&grey(0, 3, &[]), &Text::new()).unwrap_err();
    assert!(matches!(error, PictureError::Size { width: 0, height: 3, .. }), "{error}");
}

#[test]
fn writing_replaces_a_file_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    for shade in [1, 2] {
        write(&path, &grey(1, 1, &[shade]), &Text::new()).unwrap();
        assert_eq!(read(&path).unwrap().0.pixels, [shade]);
    }
    assert_eq!(names(folder.path()), ["a.png"]);
}

#[test]
fn what_cannot_be_written_is_said_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.png");
    fs::write(&old, "old").unwrap();
    let write = |path: &Path| write(path, &grey(1, 1, &[7]), &Text::new()).unwrap_err();

    for path in [&folder.path().join("no/such/a.png"), &old.join("a.png"), folder.path()] {
        let error = write(path);
        assert!(matches!(&error, PictureError::File(e) if e.action == "write" && e.path == path), "{error}");
    }
    // A bad text is found before anything is written.
    let error = imagen::picture::write(&old, &grey(1, 1, &[7]), &text(&[("", "")])).unwrap_err();
    assert!(matches!(&error, PictureError::Text { .. }), "{error}");

    assert_eq!(fs::read(&old).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["old.png"]);
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    assert_eq!(
        read(&path).unwrap_err().to_string(),
        format!("cannot read {}: No such file or directory (os error 2); check the path", path.display())
    );
    let whole = encode(&grey(20, 20, &(0..400).map(|i| (i * 7) as u8).collect::<Vec<_>>()), &Text::new()).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(&error, PictureError::Damaged { .. }), "{length} of {}: {error}", whole.len());
    }
    fs::write(&path, "GIF89a, not a PNG at all").unwrap();
    assert!(matches!(read(&path).unwrap_err(), PictureError::Damaged { .. }));
    assert!(matches!(read(folder.path()).unwrap_err(), PictureError::File(e) if e.action == "read"));
}

#[test]
fn a_preview_shows_two_rows_a_line() {
    let picture = grey(2, 3, &[0, 255, 255, 0, 128, 128]);
    assert_eq!(
        preview(&picture, 80, Colours::True),
        "\x1b[38;2;0;0;0;48;2;255;255;255m▀\x1b[38;2;255;255;255;48;2;0;0;0m▀\x1b[0m\n\
         \x1b[38;2;128;128;128m▀▀\x1b[0m\n"
    );
    assert_eq!(
        preview(&picture, 80, Colours::Greys),
        "\x1b[38;5;16;48;5;231m▀\x1b[38;5;231;48;5;16m▀\x1b[0m\n\x1b[38;5;244m▀▀\x1b[0m\n"
    );
}

#[test]
fn a_preview_fits_the_terminal() {
    let wide = Picture::blank(300, 100, 3, 200);
    for columns in [1, 7, 80, 299, 300, 1000] {
        let text = preview(&wide, columns, Colours::True);
        let lines: Vec<usize> = text.lines().map(|line| line.matches('▀').count()).collect();
        assert!(lines.iter().all(|&width| width == columns.min(300)));
        assert_eq!(lines.len(), ((columns.min(300) as f64 / 3.0).round() as usize).max(1).div_ceil(2));
        assert!(text.contains("38;2;200;200;200"));
    }
    assert_eq!(preview(&wide, 0, Colours::True), "");
    // Shrinking takes the mean.
    assert!(preview(&grey(2, 2, &[0, 100, 100, 200]), 1, Colours::True).starts_with("\x1b[38;2;100;100;100m"));
}

/// Every grey is shown by one of the 26 of the palette that is nearest to it.
#[test]
fn a_preview_takes_the_nearest_grey() {
    let palette = |index: i32| match index {
        16 => 0,
        231 => 255,
        index => 8 + 10 * (index - 232),
    };
    for shade in 0..=255u8 {
        let text = preview(&grey(1, 1, &[shade]), 1, Colours::Greys);
        let index: i32 = text.trim_start_matches("\x1b[38;5;").split('m').next().unwrap().parse().unwrap();
        let distance = |index| (palette(index) - i32::from(shade)).abs();
        let nearest = (232..=255).chain([16, 231]).map(distance).min().unwrap();
        assert_eq!(distance(index), nearest, "{shade} shown as {index}");
    }
}

/// All numbers of the paths of an SVG.
fn numbers(svg: &str) -> Vec<f64> {
    let paths = svg.split(" d=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let parts = paths.flat_map(|path| path.split(|c: char| c.is_alphabetic() || c == ' '));
    parts.filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
}

#[test]
fn a_chart_of_anything_is_a_drawing_with_finite_numbers() {
    let chart = |points: &[(f64, f64)]| Chart::new("t").curve(Curve::new("a", points.to_vec()).smoothed(0.9));
    let nothing: [&[(f64, f64)]; 3] = [&[], &[(f64::NAN, 1.0), (1.0, f64::INFINITY)], &[(0.0, -1.0)]];
    for points in nothing {
        let svg = chart(points).log_x().log_y().svg();
        assert!(svg.contains("no data") && numbers(&svg).iter().all(|v| v.is_finite()));
    }
    assert!(Chart::new("t").svg().contains("no data"));
    let something: [&[(f64, f64)]; 6] = [
        &[(1.0, 2.0)],
        &[(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)],
        &[(1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, 1.0), (f64::INFINITY, 1.0)],
        &[(0.0, 0.0), (-1.0, -5.0), (1.0, 3.0)],
        &[(1.0, 1e299), (2.0, -1e299), (3.0, f64::MAX), (4.0, 5e-324)],
        &[(1e15, 1.0), (1e15 + 1.0, 1.0 + 1e-15)],
    ];
    for (points, log) in something.iter().flat_map(|points| [(points, false), (points, true)]) {
        let svg = if log { chart(points).log_x().log_y().svg() } else { chart(points).svg() };
        assert!(!svg.contains("no data"), "{points:?}, log {log}");
        assert!(numbers(&svg).iter().all(|v| (-1.0..=800.0).contains(v)), "{points:?}, log {log}:\n{svg}");
    }
}

#[test]
fn dots_arrows_and_bars_have_places_on_the_axes() {
    let points = vec![(0.0, 1.0), (1.0, 3.0), (2.0, f64::NAN), (3.0, -2.0)];
    let svg = Chart::new("t").dots("a", points.clone()).svg();
    assert_eq!(svg.matches("h.01").count(), 3, "a point that is no number has no dot");
    let svg = Chart::new("t").bars("a", points).svg();
    assert_eq!(
        svg.lines().find(|line| line.contains("V") && line.contains("stroke-width")).unwrap().matches('M').count(),
        3
    );
    let svg = Chart::new("t").arrows("", vec![[(0.0, 0.0), (1.0, 1.0)], [(1.0, 1.0), (1.0, f64::INFINITY)]]).svg();
    assert_eq!(svg.matches("stroke-width=\"1.2\"").count(), 1);
    assert!(numbers(&svg).iter().all(|v| v.is_finite()));
}

// A circle's points in the plane: on a square chart its width is its height in pixels, though the axes' data differ.
#[test]
fn a_circle_is_a_circle_on_a_square_chart() {
    let circle = (0..100).map(|i| f64::from(i) * 0.0629).map(|a| (3.0 + a.cos(), 0.5 * a.sin())).collect();
    let svg = Chart::new("t").square().curve(Curve::new("", circle)).svg();
    let line = svg.lines().find(|line| line.contains("stroke-linejoin")).unwrap();
    let places: Vec<f64> = numbers(line);
    let span = |from: usize| {
        let way = places.iter().skip(from).step_by(2);
        way.clone().fold(f64::MIN, |a, &b| a.max(b)) - way.fold(f64::MAX, |a, &b| a.min(b))
    };
    assert!((span(0) / span(1) - 2.0).abs() < 0.01, "{} by {}", span(0), span(1));
}

#[test]
fn an_arrow_of_a_diagram_ends_at_the_edges_of_its_boxes() {
    let mut diagram = Diagram::new(300.0, 80.0);
    let a = diagram.block(20.0, 20.0, 80.0, 40.0, &["a"], Tint::Grey);
    let b = diagram.block(200.0, 20.0, 80.0, 40.0, &["b"], Tint::Blue);
    diagram.arrow(a, b, "");
    assert!(diagram.svg().contains("M100.0 40.0L200.0 40.0"));
}

#[test]
fn a_gap_interrupts_the_line() {
    let points = vec![(0.0, 0.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 0.0), (5.0, f64::NAN), (6.0, 1.0)];
    let svg = Chart::new("t").curve(Curve::new("", points)).svg();
    let line = svg.lines().find(|line| line.contains("stroke-linejoin")).unwrap();
    assert_eq!((line.matches('M').count(), line.matches('L').count(), line.matches("h.01").count()), (3, 2, 1));
}

#[test]
fn an_interval_reaches_from_its_low_to_its_high_end_in_the_colour_of_its_curve() {
    let points = vec![(0.0, 50.0), (f64::NAN, f64::NAN), (1.0, 60.0)];
    let curve = Curve::new("", points).with_intervals(vec![[0.0, 100.0], [f64::NAN; 2], [50.0, 75.0]]);
    let svg = Chart::new("t").y_range(0.0, 100.0).curve(curve).svg();
    let uprights: Vec<&str> = svg.lines().filter(|line| line.contains("h8")).collect();
    assert_eq!(uprights.len(), 2);
    let ends = |upright: &str| -> (f64, f64) {
        let (low, high) = upright.split('"').nth(1).unwrap().split_once("h8M").unwrap().1.split_once('V').unwrap();
        let number = |s: &str| s.split(['M', ' ']).find(|s| !s.is_empty()).unwrap().parse::<f64>().unwrap();
        (low.split_once(' ').unwrap().1.parse().unwrap(), number(high))
    };
    let ((bottom, top), (low, high)) = (ends(uprights[0]), ends(uprights[1]));
    assert!(((bottom + top) / 2.0 - low).abs() < 0.11 && ((low + top) / 2.0 - high).abs() < 0.11);
    assert!(uprights.iter().all(|line| line.contains("#0072b2")), "{svg}");
}

#[test]
fn an_interval_beyond_the_points_has_room() {
    let curve = Curve::new("", vec![(0.0, 1.0), (1.0, 1.1)]).with_intervals(vec![[-5.0, 5.0], [1.0, 1.2]]);
    assert!(Chart::new("t").curve(curve).svg().contains(">4<"));
}

#[test]
fn words_do_not_break_the_drawing() {
    let svg = Chart::new("a < b & \"c\"").x("x\u{1}").curve(Curve::new("</text>", vec![(0.0, 1.0)])).svg();
    assert!(svg.contains("a &lt; b &amp; \"c\"") && svg.contains("&lt;/text&gt;") && !svg.contains('\u{1}'));
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
}

#[test]
fn a_long_run_makes_a_small_file_that_keeps_its_spikes() {
    let loss = |i: usize| if i == 54_321 { 9.0 } else { (i % 10) as f64 / 10.0 };
    let curve = Curve::new("loss", (0..100_000).map(|i| (i as f64, loss(i))).collect());
    let svg = Chart::new("t").curve(curve).svg();
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
    let line = svg.lines().find(|line| line.contains("stroke-linejoin")).unwrap();
    // Values up to 0.9 stay in the lowest tenth or so; only the spike comes near the top.
    let high = line.split(['M', 'L']).filter_map(|point| point.split(['"', ' ']).nth(1)?.parse::<f64>().ok());
    assert_eq!(high.filter(|&y| y < 100.0).count(), 1);
}

#[test]
fn smoothing_starts_unbiased_and_skips_what_is_not_finite() {
    let flat = |y: f64| Curve::new("", vec![(0.0, y), (1.0, f64::NAN), (2.0, y), (3.0, y)]).smoothed(0.9);
    let svg = Chart::new("t").curve(flat(2.0)).svg();
    let lines: Vec<&str> = svg.lines().filter(|line| line.contains("stroke-linejoin")).collect();
    // The average of a constant is that constant: the same path, faint and strong.
    let path = |line: &str| line.split('"').nth(1).unwrap().to_string();
    assert_eq!(lines.len(), 2);
    assert_eq!(path(lines[0]), path(lines[1]));
}

#[test]
fn a_heatmap_has_a_cell_a_value_and_darker_is_more() {
    let svg = heatmap("t", ("asked", "seen"), &["zero", "one"], &["0", "1", "?"], &[9.0, 1.0, 0.0, 0.0, 9.0, f64::NAN]);
    assert_eq!(svg.matches("<rect x").count(), 6);
    assert_eq!(svg.matches("rgb(8,64,129)").count(), 2);
    assert_eq!(svg.matches("rgb(246,249,252)").count(), 3);
    assert_eq!((svg.matches(">9<").count(), svg.matches(">1<").count(), svg.matches(">–<").count()), (2, 2, 1));
}
