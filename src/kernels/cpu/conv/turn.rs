//! From planes of pixels to channels innermost and back.

/// Squares of this side are transposed in registers.
const SQUARE: usize = 4;

type Square = [[f32; SQUARE]; SQUARE];

/// The transpose. The compiler moves the numbers one by one; with shuffles, which every x86-64 processor has, it takes
/// a third of the time.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transposed(square: Square) -> Square {
    let Some(sse) = pulp::core_arch::x86::Sse::try_new() else { return plainly_transposed(square) };
    let [a, b, c, d] = square;
    let (a, b, c, d) = (pulp::cast(a), pulp::cast(b), pulp::cast(c), pulp::cast(d));
    let (ab, cd) = (sse._mm_unpacklo_ps(a, b), sse._mm_unpacklo_ps(c, d));
    let (ab_high, cd_high) = (sse._mm_unpackhi_ps(a, b), sse._mm_unpackhi_ps(c, d));
    [
        pulp::cast(sse._mm_movelh_ps(ab, cd)),
        pulp::cast(sse._mm_movehl_ps(cd, ab)),
        pulp::cast(sse._mm_movelh_ps(ab_high, cd_high)),
        pulp::cast(sse._mm_movehl_ps(cd_high, ab_high)),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transposed(square: Square) -> Square {
    plainly_transposed(square)
}

#[inline(always)]
fn plainly_transposed(square: Square) -> Square {
    std::array::from_fn(|j| std::array::from_fn(|i| square[i][j]))
}

/// Pixels taken together: few enough that they stay in the nearest cache while their channels are gone through, many
/// enough that the planes, which are far away, are read and written in long runs.
const RUN: usize = 128;

/// Pixels of some channels (planes of x, `plane` apart), from number `start` of each plane on, with channels innermost:
/// the channels of pixel i from `to[places[i]]` on.
#[inline(always)]
pub(in crate::kernels::cpu) fn turn_in(x: &[f32], plane: usize, start: usize, places: &[usize], to: &mut [f32]) {
    for (start, places) in (start..).step_by(RUN).zip(places.chunks(RUN)) {
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
                let square = transposed(square);
                for j in 0..SQUARE {
                    to[places[j] + channel..][..SQUARE].copy_from_slice(&square[j]);
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
}

/// The other way: to planes, one slice for each channel.
#[inline(always)]
pub(super) fn turn_out(from: &[f32], places: &[usize], out: &mut [&mut [f32]]) {
    // What a plane gets is collected first and copied as a whole.
    let mut runs = [[0.0; RUN]; SQUARE];
    for (start, places) in (0..).step_by(RUN).zip(places.chunks(RUN)) {
        let mut planes = out.chunks_exact_mut(SQUARE);
        let mut channel = 0;
        for planes in &mut planes {
            let (squares, rest) = places.as_chunks::<SQUARE>();
            for (s, places) in squares.iter().enumerate() {
                let mut square = [[0.0; SQUARE]; SQUARE];
                for i in 0..SQUARE {
                    square[i] = *from[places[i] + channel..].first_chunk().unwrap();
                }
                let square = transposed(square);
                for j in 0..SQUARE {
                    runs[j][s * SQUARE..][..SQUARE].copy_from_slice(&square[j]);
                }
            }
            for (x, place) in (squares.len() * SQUARE..).zip(rest) {
                for j in 0..SQUARE {
                    runs[j][x] = from[place + channel + j];
                }
            }
            for j in 0..SQUARE {
                planes[j][start..start + places.len()].copy_from_slice(&runs[j][..places.len()]);
            }
            channel += SQUARE;
        }
        for plane in planes.into_remainder() {
            plane[start..].iter_mut().zip(places).for_each(|(to, place)| *to = from[place + channel]);
            channel += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_transpose() {
        let square = std::array::from_fn(|i| std::array::from_fn(|j| (4 * i + j) as f32));
        assert_eq!(transposed(square), plainly_transposed(square));
    }

    #[test]
    fn out_undoes_in_for_any_number_of_pixels_and_channels() {
        for pixels in [1, 3, 4, 7, 31, RUN - 1, RUN + 5] {
            for channels in [1, 2, 4, 7, 8, 13] {
                let x: Vec<f32> = (0..channels * pixels).map(|i| i as f32).collect();
                let places: Vec<usize> = (0..pixels).map(|pixel| (pixels - 1 - pixel) * (channels + 3)).collect();
                let mut turned = vec![f32::NAN; pixels * (channels + 3)];
                turn_in(&x, pixels, 0, &places, &mut turned);
                for (pixel, place) in places.iter().enumerate() {
                    for channel in 0..channels {
                        assert_eq!(turned[place + channel], x[channel * pixels + pixel]);
                    }
                }
                let mut back = vec![0.0; x.len()];
                turn_out(&turned, &places, &mut back.chunks_exact_mut(pixels).collect::<Vec<_>>());
                assert_eq!(back, x);
            }
        }
    }
}
