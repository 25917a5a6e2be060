// Cluster runs the embedded cluster with the sample application, and writes a
// kubeconfig for it.
//
//	cluster KUBECONFIG
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/test/names/programs/internal/notify"
)

func main() {
	demo.RedirectKlog(nil)
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(kubeconfig string) error {
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
	if err := cluster.WriteKubeconfig(kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "task-api"}); err != nil {
		return err
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
