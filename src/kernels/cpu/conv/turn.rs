//! From planes of pixels to channels innermost and back, a few rows at a time.

/// Squares of this side are transposed in registers.
const SQUARE: usize = 4;

/// A row of `width` pixels of every channel (planes of x, `plane` apart), from `start` on, with channels innermost,
/// pixels `block` apart.
#[inline(always)]
pub(super) fn turn_in(x: &[f32], plane: usize, start: usize, width: usize, block: usize, to: &mut [f32]) {
    let to = &mut to[..width * block];
    let mut planes = x.chunks_exact(SQUARE * plane);
    let mut channel = 0;
    for planes in &mut planes {
        let mut rows: [&[f32]; SQUARE] = [&[]; SQUARE];
        for i in 0..SQUARE {
            rows[i] = &planes[i * plane + start..][..width];
        }
        let mut squares = to.chunks_exact_mut(SQUARE * block);
        for (s, to) in (&mut squares).enumerate() {
            let mut square = [[0.0; SQUARE]; SQUARE];
            for i in 0..SQUARE {
                square[i] = *rows[i][s * SQUARE..].first_chunk().unwrap();
            }
            for j in 0..SQUARE {
                let to = &mut to[j * block + channel..][..SQUARE];
                for i in 0..SQUARE {
                    to[i] = square[i][j];
                }
            }
        }
        let done = width / SQUARE * SQUARE;
        for (x, to) in (done..width).zip(squares.into_remainder().chunks_exact_mut(block)) {
            for i in 0..SQUARE {
                to[channel + i] = rows[i][x];
            }
        }
        channel += SQUARE;
    }
    for plane in planes.remainder().chunks_exact(plane) {
        let row = &plane[start..start + width];
        to.chunks_exact_mut(block).zip(row).for_each(|(to, &x)| to[channel] = x);
        channel += 1;
    }
}

/// The other way: pixels with channels innermost to a row of each channel's plane.
#[inline(always)]
pub(super) fn turn_out(from: &[f32], block: usize, start: usize, width: usize, out: &mut [&mut [f32]]) {
    let from = &from[..width * block];
    let mut planes = out.chunks_exact_mut(SQUARE);
    let mut channel = 0;
    for planes in &mut planes {
        let squares = from.chunks_exact(SQUARE * block);
        let rest = squares.remainder();
        for (s, from) in squares.enumerate() {
            let mut square = [[0.0; SQUARE]; SQUARE];
            for i in 0..SQUARE {
                square[i] = *from[i * block + channel..].first_chunk().unwrap();
            }
            for j in 0..SQUARE {
                let to = &mut planes[j][start + s * SQUARE..][..SQUARE];
                for i in 0..SQUARE {
                    to[i] = square[i][j];
                }
            }
        }
        let done = width / SQUARE * SQUARE;
        for (x, from) in (done..width).zip(rest.chunks_exact(block)) {
            for j in 0..SQUARE {
                planes[j][start + x] = from[channel + j];
            }
        }
        channel += SQUARE;
    }
    for plane in planes.into_remainder() {
        let row = &mut plane[start..start + width];
        row.iter_mut().zip(from[channel..].iter().step_by(block)).for_each(|(o, &f)| *o = f);
        channel += 1;
    }
}
