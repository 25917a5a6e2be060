// Command bench compares tunneld with "kubectl port-forward" on the cluster of
// $KUBECONFIG, on which the sample application of test/cluster must run: the
// same pods, in the same minutes, in turns. See docs/performance.md.
//
// A machine that does other things disturbs both alike, so the ratio is what
// counts; the figures themselves compare with no other run. The programs' CPU
// time and memory are read from /proc, so on other systems than Linux those
// lines are empty.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "directory of the programs to measure")
	rounds := flags.Int("rounds", 5, "how often everything is measured; the medians are compared")
	only := flags.String("only", "", "measure what matches this regular expression")
	var others []rival
	flags.Func("also", "measure a forwarder that runs already, `NAME,KEY=ADDRESS,...` with the keys echo, source, http, pid; more than once for more", func(text string) error {
		o, err := parseOther(text)
		others = append(others, o)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	chosen := slices.DeleteFunc(measurements(), func(m measurement) bool { return !wanted.MatchString(m.name) })
	if len(chosen) == 0 {
		return errors.New("-only: nothing has such a name")
	}
	if os.Getenv("KUBECONFIG") == "" {
		return errors.New("set KUBECONFIG; test/cluster/cluster brings up a cluster")
	}
	dir, err := os.MkdirTemp("", "tunneld-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	cluster, err := newCluster(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.close()) }()
	rivals := append([]rival{&kubectl{}, &tunneld{bin: *bin, dir: dir}}, others...)
	stage := &stage{cluster: cluster, kept: map[rival]*running{}}
	defer stage.close()

	samples := make([][][]values, len(chosen)) // by measurement, rival and round
	for i := range samples {
		samples[i] = make([][]values, len(rivals))
	}
	began := time.Now()
	for round := range *rounds {
		for i, m := range chosen {
			for turn := range rivals {
				// Who is first in one round is last in the next.
				j := turn
				if round%2 == 1 {
					j = len(rivals) - 1 - turn
				}
				v, err := stage.measure(ctx, rivals[j], m)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					fmt.Fprintf(out, "%s: %s: %v\n", rivals[j], m.name, err)
				}
				samples[i][j] = append(samples[i][j], v)
			}
		}
		fmt.Fprintf(out, "round %d of %d done after %v\n", round+1, *rounds, time.Since(began).Round(time.Second))
	}
	return table(out, chosen, rivals, samples)
}

// A scene is the circumstances of a measurement.
type scene int

const (
	inUse     scene = iota // programs that run from the first to the last round
	fresh                  // programs that were started for it
	far                    // the same, with an API server at 40 ms
	plainSPDY              // the same, where tunneld may not use WebSockets
	crowded                // the same, with 500 unused forwards, and no kubectl
)

// A stage starts what a measurement takes.
type stage struct {
	cluster *cluster
	kept    map[rival]*running
}

// measure returns a value for each line, even if it returns an error, which
// says what went wrong meanwhile.
func (s *stage) measure(ctx context.Context, r rival, m measurement) (values, error) {
	if !r.takesPart(m.scene) {
		return nil, nil
	}
	if at := s.kept[r]; m.scene == inUse && at.alive() {
		return m.measure(ctx, at)
	}
	set, err := s.cluster.setting(ctx, m.scene)
	if err != nil {
		return nil, err
	}
	at, err := r.start(ctx, set)
	if err != nil {
		return nil, err
	}
	if m.scene == inUse {
		s.kept[r].close() // what is left of it
		s.kept[r] = at
	} else {
		defer at.close()
	}
	return m.measure(ctx, at)
}

func (s *stage) close() {
	for _, at := range s.kept {
		at.close()
	}
}

// median is that of the numbers that were measured, and none if none was.
func median(v []float64) (float64, bool) {
	v = slices.SortedFunc(slices.Values(v), cmp.Compare)
	if len(v) == 0 {
		return 0, false
	}
	return v[len(v)/2], true
}
