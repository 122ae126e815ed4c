//! From planes of pixels to channels innermost and back.

/// Squares of this side are transposed in registers.
const SQUARE: usize = 4;

/// Pixels of some channels (planes of x, `plane` apart), from number `start` of each plane on, with channels innermost:
/// the channels of pixel i from `to[places[i]]` on. A few channels are read in one go, so that memory is read in runs.
#[inline(always)]
pub(super) fn turn_in(x: &[f32], plane: usize, start: usize, places: &[usize], to: &mut [f32]) {
    let mut planes = x.chunks_exact(SQUARE * plane);
    let mut channel = 0;
    for planes in &mut planes {
        let mut rows: [&[f32]; SQUARE] = [&[]; SQUARE];
        for i in 0..SQUARE {
            rows[i] = &planes[i * plane + start..][..places.len()];
        }
        let (squares, rest) = places.as_chunks::<SQUARE>();
        for (s, places) in squares.iter().enumerate() {
            let mut square = [[0.0; SQUARE]; SQUARE];
            for i in 0..SQUARE {
                square[i] = *rows[i][s * SQUARE..].first_chunk().unwrap();
            }
            for j in 0..SQUARE {
                let to = &mut to[places[j] + channel..][..SQUARE];
                for i in 0..SQUARE {
                    to[i] = square[i][j];
                }
            }
        }
        for (x, place) in (squares.len() * SQUARE..).zip(rest) {
            for i in 0..SQUARE {
                to[place + channel + i] = rows[i][x];
            }
        }
        channel += SQUARE;
    }
    for plane in planes.remainder().chunks_exact(plane) {
        plane[start..].iter().zip(places).for_each(|(&x, place)| to[place + channel] = x);
        channel += 1;
    }
}

/// The other way: to planes, one slice for each channel.
#[inline(always)]
pub(super) fn turn_out(from: &[f32], places: &[usize], out: &mut [&mut [f32]]) {
    let mut planes = out.chunks_exact_mut(SQUARE);
    let mut channel = 0;
    for planes in &mut planes {
        let (squares, rest) = places.as_chunks::<SQUARE>();
        for (s, places) in squares.iter().enumerate() {
            let mut square = [[0.0; SQUARE]; SQUARE];
            for i in 0..SQUARE {
                square[i] = *from[places[i] + channel..].first_chunk().unwrap();
            }
            for j in 0..SQUARE {
                let to = &mut planes[j][s * SQUARE..][..SQUARE];
                for i in 0..SQUARE {
                    to[i] = square[i][j];
                }
            }
        }
        for (x, place) in (squares.len() * SQUARE..).zip(rest) {
            for j in 0..SQUARE {
                planes[j][x] = from[place + channel + j];
            }
        }
        channel += SQUARE;
    }
    for plane in planes.into_remainder() {
        plane.iter_mut().zip(places).for_each(|(to, place)| *to = from[place + channel]);
        channel += 1;
    }
}
