package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// The container ports of the default program.
const (
	HTTPPort   = 8000 // see programHTTP; HTTP/1.1, and HTTP/2 with prior knowledge
	EchoPort   = 9000 // TCP: sends back what comes
	SourcePort = 9001 // TCP: reads a line with a number, and sends that many bytes
	SinkPort   = 9002 // TCP: reads to the end, and answers with the count of bytes
)

// Program is what a pod runs by default, by container port.
func Program(pod string) map[uint16]func(net.Conn) {
	return map[uint16]func(net.Conn){
		HTTPPort:   HTTP(programHTTP(pod)),
		EchoPort:   echo,
		SourcePort: source,
		SinkPort:   sink,
	}
}

func echo(c net.Conn) {
	io.Copy(c, c)
	closeWrite(c)
}

func source(c net.Conn) {
	line, _ := bufio.NewReader(c).ReadString('\n')
	n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		fmt.Fprintf(c, "a number was expected, not %q\n", line)
		return
	}
	io.CopyN(c, endless{}, n)
}

func sink(c net.Conn) {
	n, _ := io.Copy(io.Discard, c)
	fmt.Fprintf(c, "%d\n", n)
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// endless is zero bytes without end.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// programHTTP is the HTTP part of the default program:
//
//	/health       {"status": "healthy"}
//	/bytes/N      N bytes
//	/slow/MS      answers after that many milliseconds
//	/sse          ten events, 200 ms apart
//	/upload       the count of the body's bytes
//	/ws           WebSocket echo
//	/status/CODE  that status
//	else          JSON: pod, host, path, method, proto and headers as they came
func programHTTP(pod string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"status": "healthy"}`)
	})
	mux.HandleFunc("/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		w.Header().Set("Content-Type", "application/octet-stream")
		io.CopyN(w, endless{}, n)
	})
	mux.HandleFunc("/slow/{ms}", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.PathValue("ms"))
		if pause(r.Context(), time.Duration(ms)*time.Millisecond) {
			io.WriteString(w, pod)
		}
	})
	mux.HandleFunc("/sse", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 10 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			if !pause(r.Context(), 200*time.Millisecond) {
				return
			}
		}
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	mux.HandleFunc("/ws", echoWebSocket)
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		if code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"pod": pod, "host": r.Host, "path": r.URL.RequestURI(), "method": r.Method, "proto": r.Proto, "headers": r.Header,
		})
	})
	return mux
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer ws.Close()
	for {
		kind, message, err := ws.ReadMessage()
		if err != nil || ws.WriteMessage(kind, message) != nil {
			return
		}
	}
}

// pause waits, and reports whether nothing ended it before its time.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// HTTP makes a handler of requests one of connections. It speaks HTTP/1.1, and HTTP/2 to clients that know.
func HTTP(h http.Handler) func(net.Conn) {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return func(c net.Conn) {
		single := &singleListener{conn: c, closed: make(chan struct{})}
		server := &http.Server{Handler: h, Protocols: &protocols, ErrorLog: log.New(io.Discard, "", 0)}
		server.Serve(single)
	}
}

// A singleListener accepts one connection, and then waits for its end.
type singleListener struct {
	conn   net.Conn
	taken  bool
	closed chan struct{}
	once   sync.Once
}

func (l *singleListener) Accept() (net.Conn, error) {
	if !l.taken {
		l.taken = true
		return &singleConn{l.conn, l}, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *singleListener) Addr() net.Addr { return l.conn.LocalAddr() }
func (l *singleListener) Close() error   { return nil }

type singleConn struct {
	net.Conn
	listener *singleListener
}

func (c *singleConn) Close() error {
	c.listener.once.Do(func() { close(c.listener.closed) })
	return c.Conn.Close()
}
