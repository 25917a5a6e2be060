package gateway_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
)

// A client that goes with RST while the pod takes nothing ends the pod's
// connection, although nobody reads from the client.
func TestClientResetsDuringAStalledUpload(t *testing.T) {
	for _, tt := range []struct{ name, head, answer string }{
		{"a request", "POST / HTTP/1.1\r\nHost: app.local\r\nContent-Length: 1000000000\r\n\r\n", ""},
		{"an upgraded connection", "GET / HTTP/1.1\r\nHost: app.local\r\nConnection: Upgrade\r\nUpgrade: sink\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sink\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := new(pods)
			done := make(chan struct{})
			one := p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				io.WriteString(c, tt.answer)
				<-done
			})
			t.Cleanup(func() { close(done) })
			conn, err := net.Dial("tcp", newHarness(t, p).http.String())
			if err != nil {
				t.Fatal(err)
			}
			c := conn.(*net.TCPConn)
			io.WriteString(c, tt.head)
			if tt.answer != "" {
				if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
					t.Fatal(err)
				}
			}
			for block := make([]byte, 64<<10); ; {
				c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				n, err := c.Write(block)
				if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
					break
				}
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
			}
			c.SetLinger(0)
			c.Close()
			await.Until(t, "the connection to the pod to end", func() bool { return p.openTo(one) == 0 })
		})
	}
}
