//! `GET /watch/{watch_code}` as server-sent events.

use crate::harness::Sidecar;

#[tokio::test(start_paused = true)]
async fn a_stream_tells_every_state_and_ends_with_the_final_one() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let path = format!("/watch/{watch_code}");
    let mut stream = sidecar.stream(&path, None).await;
    assert_eq!(stream.block().await.unwrap().retry, "1000");
    let first = stream.block().await.unwrap();
    assert_eq!((first.event.as_str(), &first.json()["status"]), ("payment", &"created".into()));
    sidecar.pay(&code);
    let last = stream.event().await.unwrap();
    assert_eq!(last.json()["status"], "completed");
    assert_eq!(stream.event().await, None);
    assert_eq!(format!("\"{}\"", last.id), sidecar.watch(&watch_code).await.header("etag"));
    assert_eq!(sidecar.stream(&path, Some(&last.id)).await.status, 204);
    drop(stream);
    sidecar.end().await;
}
