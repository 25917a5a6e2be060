// Package leakcheck fails a package's tests if they leave goroutines behind.
package leakcheck

import (
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests and then looks for goroutines. It is for TestMain of
// packages whose tests use the embedded cluster.
//
// Not looked at is what the servers' own libraries, which our client does not
// use, leave behind when a connection is cut just while a stream is opened: the
// stream is offered to a loop that takes no more, and whoever waits for that
// stream, for the other half of its pair, or for the connection's streams to
// end, waits on.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).Serve"),
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).Serve.func2"),
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).shutdown"),
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).shutdown.func1"),
		goleak.IgnoreAnyFunction("k8s.io/cri-streaming/pkg/streaming/portforward.(*httpStreamHandler).monitorStreamPair"),
		goleak.IgnoreAnyFunction("k8s.io/cri-streaming/pkg/streaming/portforward.(*httpStreamHandler).portForward"),
	)
}
