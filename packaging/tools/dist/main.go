// Command dist makes what is published of tunneld, from the sources alone: the
// same sources, toolchain and version make the same bytes, wherever and whenever.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dist: error:", err)
		os.Exit(1)
	}
}

// platforms are those that something is published for.
var platforms = []platform{
	{"linux", "amd64"}, {"linux", "arm64"},
	{"darwin", "amd64"}, {"darwin", "arm64"},
	{"windows", "amd64"}, {"windows", "arm64"},
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("dist", flag.ExitOnError)
	root := flags.String("root", "../..", "the repository")
	out := flags.String("out", "dist", "where to put what is made; what is there is replaced, unless -only is given")
	version := flags.String("version", "", "which version it is; empty: the commit's")
	only := flags.String("only", "", "deb or rpm: make only that, for one platform")
	arch := flags.String("arch", "", "only this architecture; empty: all")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// All paths below are the repository's.
	if err := os.Chdir(*root); err != nil {
		return err
	}
	r, err := newRelease(".", *version)
	if err != nil {
		return err
	}
	for _, set := range [][2]string{
		// Nothing of the user's settings may get into what is built.
		{"GOENV", "off"}, {"GOFLAGS", ""}, {"GOWORK", "off"}, {"GOAMD64", "v1"}, {"GOARM64", "v8.0"}, {"GOEXPERIMENT", ""}, {"GOFIPS140", "off"},
		{"CGO_ENABLED", "0"}, {"TZ", "UTC"}, {"LC_ALL", "C"},
		{"SOURCE_DATE_EPOCH", fmt.Sprint(r.time.Unix())},
	} {
		if err := os.Setenv(set[0], set[1]); err != nil {
			return err
		}
	}
	wanted := slices.DeleteFunc(slices.Clone(platforms), func(p platform) bool {
		return *arch != "" && p.arch != *arch || *only != "" && p.os != "linux"
	})
	if len(wanted) == 0 {
		return fmt.Errorf("nothing is published for %s", *arch)
	}
	work, err := os.MkdirTemp("", "tunneld-dist-")
	if err != nil {
		return err
	}
	d := dist{release: r, out: *out, work: work}
	return errors.Join(d.make(ctx, wanted, *only), os.RemoveAll(work))
}

// A dist is one run: what is made in work goes to out.
type dist struct {
	release
	out, work string
}

func (d dist) make(ctx context.Context, wanted []platform, only string) error {
	if only == "" {
		if err := os.RemoveAll(d.out); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(d.out, 0o755); err != nil {
		return err
	}
	shared := filepath.Join(d.work, "shared")
	if err := d.stage(ctx, shared); err != nil {
		return err
	}
	for _, p := range wanted {
		if err := d.build(ctx, p); err != nil {
			return err
		}
		if p.os != "linux" {
			continue
		}
		for _, format := range []string{"deb", "rpm"} {
			if only == "" || only == format {
				if err := d.pack(format, p); err != nil {
					return fmt.Errorf("making the %s for %s: %w", format, p, err)
				}
			}
		}
	}
	return nil
}

// made tells which file is ready.
func (d dist) made(name string) { fmt.Println(strings.TrimPrefix(filepath.Join(d.out, name), "./")) }
