// Abuse sends tunneld-helper what no client of ours would, as whoever runs it, one
// connection each, and prints what came back: a line for each, with a word and the
// answer.
//
//	abuse SOCKET
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	for _, m := range []struct {
		name string
		text string
	}{
		{"empty", ""},
		{"not JSON", "GET / HTTP/1.1\r\n\r\n"},
		{"cut off", `{"verb":"claim","names":[{"name":"a.local"`},
		{"two requests", `{"verb":"release"}{"verb":"release"}`},
		{"unknown verb", `{"verb":"run","path":"/bin/sh"}`},
		{"unknown field", `{"verb":"release","uid":1001}`},
		{"a list", `[{"verb":"release"}]`},
		{"deep", strings.Repeat("[", 100_000)},
		{"oversized", `{"verb":"claim","skip":["` + strings.Repeat("x", 3<<20) + `"]}`},
		{"high port", `{"verb":"listen","listen":"127.0.0.1:8080"}`},
		{"not loopback", `{"verb":"listen","listen":"0.0.0.0:80"}`},
		{"an address of the network", `{"verb":"listen","listen":"192.0.2.2:80"}`},
		{"server abroad", `{"verb":"claim","server":"192.0.2.1:53","names":[{"name":"a.local","addrs":["127.77.0.1"]}]}`},
		{"address abroad", `{"verb":"claim","server":"127.0.0.1:15353","names":[{"name":"a.local","addrs":["192.0.2.1"]}]}`},
		{"a line in a name", `{"verb":"claim","server":"127.0.0.1:15353","names":[{"name":"a.local\n192.0.2.1 www.example.com","addrs":["127.77.0.1"]}]}`},
	} {
		answer, err := send(os.Args[1], m.text)
		if err != nil {
			log.Fatalf("%s: %v", m.name, err)
		}
		fmt.Printf("%s\t%s\n", m.name, bytes.TrimSpace(answer))
	}
}

func send(socket, text string) ([]byte, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	// It may hang up before it has read all, and has answered then.
	if _, err := io.WriteString(c, text); err == nil {
		c.(*net.UnixConn).CloseWrite()
	}
	answer, err := io.ReadAll(c)
	if len(answer) > 0 || err == nil || !os.IsTimeout(err) {
		return answer, nil
	}
	return nil, err
}
