// Command bench compares tunneld with "kubectl port-forward" on the cluster of
// $KUBECONFIG, on which the sample application of test/cluster must run: the
// same pods, in the same minutes, in turns. See "make bench".
//
// A machine that does other things disturbs both alike, so the ratio is what
// counts; the figures themselves compare with no other run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
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
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	metrics := slices.DeleteFunc(slices.Clone(metrics), func(m metric) bool { return !wanted.MatchString(m.name) })
	if os.Getenv("KUBECONFIG") == "" {
		return errors.New("set KUBECONFIG; test/cluster/cluster brings up a cluster")
	}
	dir, err := os.MkdirTemp("", "tunneld-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	rivals := []rival{&kubectl{}, &tunneld{bin: *bin, dir: dir}}
	for _, r := range rivals {
		defer func() { err = errors.Join(err, r.close()) }()
	}
	samples := make([][][]float64, len(metrics)) // by metric, rival and round
	for round := range *rounds {
		for i, m := range metrics {
			if samples[i] == nil {
				samples[i] = make([][]float64, len(rivals))
			}
			for j, r := range rivals {
				at, err := r.ready(ctx)
				if err != nil {
					return fmt.Errorf("%s: %w", r, err)
				}
				v, err := m.measure(ctx, at)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					fmt.Fprintf(out, "%s: %s: %v\n", r, m.name, err)
				}
				samples[i][j] = append(samples[i][j], v)
			}
		}
		fmt.Fprintf(out, "round %d of %d done\n", round+1, *rounds)
	}
	return table(out, metrics, rivals, samples)
}

// table prints the medians, and how many times better the last rival is than
// the first.
func table(out io.Writer, metrics []metric, rivals []rival, samples [][][]float64) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := []string{""}
	for _, r := range rivals {
		head = append(head, r.String())
	}
	fmt.Fprintln(w, strings.Join(append(head, "better by"), "\t")+"\t")
	for i, m := range metrics {
		row := []string{m.name}
		var medians []float64
		for j := range rivals {
			v := median(samples[i][j])
			medians = append(medians, v)
			row = append(row, fmt.Sprintf("%.4g %s", v, m.unit))
		}
		first, last := medians[0], medians[len(medians)-1]
		if m.less {
			first, last = last, first
		}
		ratio := "-"
		if first > 0 {
			ratio = fmt.Sprintf("%.2f ×", last/first)
		}
		fmt.Fprintln(w, strings.Join(append(row, ratio), "\t")+"\t")
	}
	return w.Flush()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
