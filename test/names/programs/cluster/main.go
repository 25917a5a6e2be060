// Cluster runs the embedded cluster with the sample application, and writes a
// kubeconfig for it. With an address, the kubeconfig is for those who reach the API
// server there; else it is on loopback only.
//
//	cluster KUBECONFIG [ADDRESS:PORT]
package main

import (
	"context"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/test/names/programs/internal/notify"
)

func main() {
	demo.RedirectKlog(nil)
	if err := run(os.Args[1], os.Args[2:]...); err != nil {
		log.Fatal(err)
	}
}

func run(kubeconfig string, at ...string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cluster, err := demo.Start(demo.Options{})
	if err != nil {
		return err
	}
	defer cluster.Close()
	if err := cluster.Run(demo.TaskAPI()...); err != nil {
		return err
	}
	config := cluster.Kubeconfig(demo.Kubeconfig{Context: "demo", Namespace: "task-api"})
	for _, addr := range at {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		defer l.Close()
		server := config.Clusters["demo"]
		go relay(l, strings.TrimPrefix(server.Server, "https://"))
		server.Server, server.TLSServerName = "https://"+addr, "localhost" // as its certificate has it
	}
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		return err
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// relay carries connections, until the listener is closed.
func relay(l net.Listener, to string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			s, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer s.Close()
			var both sync.WaitGroup
			both.Go(func() { pour(s, c) })
			both.Go(func() { pour(c, s) })
			both.Wait()
		}()
	}
}

// pour carries one direction, with its end.
func pour(to, from net.Conn) {
	io.Copy(to, from)
	to.(*net.TCPConn).CloseWrite()
}
