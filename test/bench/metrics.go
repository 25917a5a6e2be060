package main

import (
	"context"
	"fmt"
	"strings"
)

// values are what one measurement brings, by the name of the line; "" is the
// line that has the measurement's own name. What is missing was not measured.
type values map[string]float64

// A measurement is one thing that is done with each rival, and the lines of
// the table that come of it.
type measurement struct {
	name    string
	scene   scene
	lines   []line
	measure func(ctx context.Context, at *running) (values, error)
}

// A line is one figure.
type line struct {
	name, unit string
	bar        bar
}

// A bar is what is asked of a figure.
type bar struct {
	text string
	// met gets the figures of kubectl and tunneld. There is no figure of kubectl
	// where the bar does not ask for one.
	met func(kubectl, tunneld float64) bool
	// alone says that it is about tunneld's figure only.
	alone bool
}

func ratioAtLeast(x float64) bar {
	return bar{text: fmt.Sprintf("≥ %g", x), met: func(k, t float64) bool { return t >= x*k }}
}

func ratioAtMost(x float64) bar {
	return bar{text: fmt.Sprintf("≤ %g", x), met: func(k, t float64) bool { return t <= x*k }}
}

func atLeast(x float64, unit string) bar {
	return bar{text: fmt.Sprintf("≥ %g %s", x, unit), met: func(_, t float64) bool { return t >= x }, alone: true}
}

func atMost(x float64, unit string) bar {
	return bar{text: strings.TrimSpace(fmt.Sprintf("≤ %g %s", x, unit)), met: func(_, t float64) bool { return t <= x }, alone: true}
}

// The names of lines.
const (
	p50 = "p50"
	p99 = "p99"
	cpu = "client CPU"

	upstream = "connections to the API server"
)

// measurements are all there are, in the order of the table.
func measurements() []measurement {
	var all []measurement
	for _, way := range []struct {
		name string
		move func(context.Context, *running, int64) error
	}{{"download", download}, {"upload", upload}} {
		for _, conns := range []int{1, 8} {
			for _, over := range []struct {
				name  string
				scene scene
				least float64
			}{{"", inUse, 1.0}, {", tunneld over plain SPDY", plainSPDY, 1.3}} {
				all = append(all, measurement{
					name: fmt.Sprintf("%s, %s%s", way.name, plural(conns, "connection"), over.name), scene: over.scene,
					lines: []line{
						{"", "MiB/s", ratioAtLeast(over.least)},
						{cpu, "s/GB", ratioAtMost(0.75)},
					},
					measure: throughput(conns, way.move),
				})
			}
		}
	}
	all = append(all,
		measurement{"new connections, 32 at a time", inUse, []line{
			{"", "/s", ratioAtLeast(1.2)}, {p50, "ms", bar{}}, {p99, "ms", bar{}}, {cpu, "ms each", ratioAtMost(0.5)},
		}, connectionRate},
		measurement{"new connection and first byte", inUse, []line{
			{p50, "ms", ratioAtMost(0.85)}, {p99, "ms", bar{}}, {cpu, "ms each", bar{}},
		}, firstByte(500)},
		measurement{"new connection and first byte at 40 ms", far, []line{
			{p50, "ms", ratioAtMost(0.45)}, {p99, "ms", bar{}},
		}, firstByte(40)},
		measurement{"64 bytes there and back", inUse, []line{
			{p50, "ms", ratioAtMost(0.95)}, {p99, "ms", bar{}}, {cpu, "ms each", ratioAtMost(0.7)},
		}, pingPong},
		measurement{"HTTP, a new connection each", inUse, httpLines(ratioAtLeast(4)), httpRate(gatewayPlain, false)},
		measurement{"HTTPS, a new connection each", inUse, httpLines(ratioAtLeast(2.5)), httpRate(gatewayTLS, false)},
		measurement{"HTTP keep-alive, gateway", inUse, httpLines(ratioAtLeast(0.9)), httpRate(gatewayPlain, true)},
		measurement{"HTTP keep-alive, raw port", inUse, httpLines(ratioAtLeast(1)), httpRate(rawPort, true)},
		measurement{"500 forwards, none in use", crowded, []line{
			{"memory", "MB", atMost(60, "MB")}, {upstream, "", atMost(1, "")}, {cpu, "ms/s", atMost(5, "ms/s")},
		}, unused},
		measurement{"idle connections", fresh, []line{
			{"memory before", "MB", bar{}}, {"memory each", "KiB", atMost(300, "KiB")},
		}, idleConnections},
		measurement{"echoes beside a stalled client, another port", fresh, []line{{"", "of 5", atLeast(5, "of 5")}}, besideStalled(anEcho)},
		measurement{"downloads beside a stalled client, same port", fresh, []line{{"", "of 5", atLeast(5, "of 5")}}, besideStalled(aDownload)},
	)
	return all
}

func httpLines(b bar) []line {
	return []line{{"", "/s", b}, {p50, "ms", bar{}}, {p99, "ms", bar{}}, {cpu, "ms each", bar{}}}
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
