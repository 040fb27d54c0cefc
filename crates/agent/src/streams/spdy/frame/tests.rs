use proptest::prelude::*;

use super::client::Client;
use super::*;

fn decode(bytes: &[u8], chunk: usize) -> Result<Vec<Frame>, FrameError> {
    let (mut decoder, mut buffer, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(chunk.max(1)) {
        buffer.extend_from_slice(piece);
        while let Some(frame) = decoder.next(&mut buffer)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn frames_are_read_whatever_the_size_of_the_chunks() {
    let mut client = Client::new();
    let mut bytes = client.open(1, &[("streamtype", "error")]);
    bytes.extend(client.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]));
    bytes.extend(client::data(3, b"hello", false));
    bytes.extend(ping(1));
    bytes.extend(control(4, &[&[0; 12]]));
    bytes.extend(client::data(3, b"", true));
    bytes.extend(client::reset(1));
    bytes.extend(control(GOAWAY, &[&[0; 8]]));
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    for chunk in [1, 3, 8, bytes.len()] {
        let frames = decode(&bytes, chunk).expect("valid frames");
        let mut data = Vec::new();
        let others: Vec<_> = frames
            .into_iter()
            .filter(|frame| match frame {
                Frame::Data { stream: 3, bytes, is_last: false } => {
                    data.extend_from_slice(bytes);
                    false
                }
                _ => true,
            })
            .collect();
        assert_eq!(data, b"hello", "{chunk}");
        let expected = [
            Frame::Open { stream: 1, headers: own(&[("streamtype", "error")]), is_last: false },
            Frame::Open {
                stream: 3,
                headers: own(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
                is_last: false,
            },
            Frame::Ping { id: 1 },
            Frame::Data { stream: 3, bytes: Bytes::new(), is_last: true },
            Frame::Reset { stream: 1 },
            Frame::GoAway,
        ];
        assert_eq!(others, expected, "{chunk}");
    }
}

#[test]
fn a_reply_can_be_inflated_by_the_client() {
    let mut encoder = Encoder::new().expect("a dictionary");
    let mut inflater = Inflater::new();
    for stream in [1, 3, 5] {
        let reply = encoder.reply(stream).expect("a reply");
        assert_eq!(inflater.read(&reply[HEADER_BYTES + 4..]).expect("a block"), []);
    }
}

#[test]
fn frames_beyond_the_limits_are_refused() {
    let mut large = control(PING, &[&[0; 4]]).to_vec();
    large[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
    assert!(matches!(decode(&large, 64), Err(FrameError::TooLarge { .. })));
    assert!(matches!(decode(&control(PING, &[&[0; 2]]), 64), Err(FrameError::Short)));
    assert!(matches!(decode(&[0x80, 2, 0, 1, 0, 0, 0, 0], 64), Err(FrameError::Version)));
    // A small block that inflates to a large one.
    let value = "x".repeat(100 * 1024);
    let mut deflater = Deflater::new().expect("a dictionary");
    let block = deflater.write(&[("a", &value)]).expect("a block");
    assert!(block.len() < 4096, "the block is small: {}", block.len());
    let bomb = control(SYN_STREAM, &[&[0; 10], &block]);
    assert!(matches!(decode(&bomb, 64), Err(FrameError::Headers)));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>, chunk in 1_usize..64) {
        // Errors are expected; only a panic would fail.
        drop(decode(&bytes, chunk));
    }

    #[test]
    fn no_payload_of_a_control_frame_makes_the_decoder_panic(kind in 0_u16..12, payload: Vec<u8>, chunk in 1_usize..64) {
        drop(decode(&control(kind, &[&payload]), chunk));
    }

    #[test]
    fn no_damage_to_a_header_block_makes_the_decoder_panic(at: prop::sample::Index, byte: u8) {
        let mut bytes = Client::new().open(1, &[("streamtype", "error"), ("port", "80")]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(decode(&bytes, 7));
    }
}
