package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table prints the medians of the rounds, as Markdown. The first rival is
// kubectl, the second tunneld; the ratio and the bars are about them.
func table(out io.Writer, measurements []measurement, rivals []rival, samples [][][]values) error {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	head := []string{"", rivals[0].String(), rivals[1].String(), "ratio", "bar", "met"}
	for _, r := range rivals[2:] {
		head = append(head, r.String())
	}
	fmt.Fprintln(w)
	printRow(w, head)
	for i := range head {
		head[i] = "---"
	}
	printRow(w, head)
	bars, met := 0, 0
	for i, m := range measurements {
		for _, l := range m.lines {
			name := m.name
			if l.name != "" {
				name += ": " + l.name
			}
			medians, has := make([]float64, len(rivals)), make([]bool, len(rivals))
			cells := make([]string, len(rivals))
			for j := range rivals {
				medians[j], has[j] = median(column(samples[i][j], l.name))
				cells[j] = "-"
				if has[j] {
					cells[j] = strings.TrimSpace(figure(medians[j]) + " " + l.unit)
				}
			}
			ratio, verdict := "-", ""
			if has[0] && has[1] && medians[0] > 0 {
				ratio = fmt.Sprintf("%.2f", medians[1]/medians[0])
			}
			if l.bar.met != nil {
				bars++
				switch {
				case !has[1] || !has[0] && !l.bar.alone:
					verdict = "not measured"
				case l.bar.met(medians[0], medians[1]):
					met++
					verdict = "yes"
				default:
					verdict = "no"
				}
			}
			printRow(w, append([]string{name, cells[0], cells[1], ratio, l.bar.text, verdict}, cells[2:]...))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d of %d bars met\n", met, bars)
	return err
}

func printRow(w io.Writer, cells []string) {
	fmt.Fprintf(w, "| %s\t|\n", strings.Join(cells, "\t| "))
}

// column is one line's value in each round in which it was measured.
func column(rounds []values, name string) []float64 {
	var all []float64
	for _, v := range rounds {
		if x, ok := v[name]; ok {
			all = append(all, x)
		}
	}
	return all
}

// figure writes a number as precisely as anybody would read it.
func figure(x float64) string {
	if x >= 1000 || x == float64(int(x)) {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}
