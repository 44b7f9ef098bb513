// Command bench measures what networks cost: zwrmd's, beside the bare calls of the
// kernel and beside other programs, in network namespaces of its own. It needs root.
// It prints its figures; where it is told to, it writes them as JSON, and into a page
// with plots.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"zwrm/bench/measure"
	"zwrm/bench/report"
	"zwrm/test/page"
	"zwrm/test/zwrmtest"
)

func main() {
	options, out, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	zwrmtest.Enter()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	results, err := run(ctx, options, out.only, os.Stderr)
	fmt.Print(results.Text()) // of what broke off, too
	if err == nil {
		err = out.write(results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// output is which results are wanted, and where they go beside stdout.
type output struct {
	only *regexp.Regexp // parts; nil: all
	json string         // file
	page string         // file; its plots go into the folder of the same name without .md
}

func parse(args []string) (measure.Options, output, error) {
	o, quick := measure.Full(), measure.Quick()
	var out output
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Func("bin", "`folder` of zwrmd and zwrm", func(folder string) error {
		folder, err := filepath.Abs(folder)
		if err != nil {
			return err
		}
		return os.Setenv("ZWRM_TEST_BIN", folder)
	})
	flags.StringVar(&out.json, "json", "", "write the results to this `file`")
	flags.StringVar(&out.page, "page", "", "write the figures into this `file`, and plots into the folder beside it")
	flags.BoolFunc("quick", "take minutes, not half an hour; stands before other flags", func(string) error {
		o = quick
		return nil
	})
	flags.Func("levels", "`numbers` of VMs present, ascending", setList(&o.Levels))
	flags.Func("per-app", "`numbers` of VMs of an app", setList(&o.PerApp))
	flags.Func("counts", "`numbers` of VMs of a deploy", setList(&o.Counts))
	flags.Func("only", "take the figures of parts that match this `expression` only, as \"growth\"", func(text string) (err error) {
		out.only, err = regexp.Compile(text)
		return err
	})
	flags.IntVar(&o.Rounds, "rounds", o.Rounds, "`number` of attaches one by one")
	flags.IntVar(&o.Burst, "burst", o.Burst, "`number` of them, until it is the next one's turn")
	flags.DurationVar(&o.Pause, "pause", o.Pause, "how long nothing is done between two turns")
	flags.IntVar(&o.Peers, "peers", o.Peers, "`number` of networks present beside other programs")
	flags.DurationVar(&o.Idle, "idle", o.Idle, "how long zwrmd is watched while it does nothing")
	err := flags.Parse(args)
	return o, out, err
}

func setList(field *[]int) func(string) error {
	return func(text string) error {
		var numbers []int
		for word := range strings.SplitSeq(text, ",") {
			n, err := strconv.Atoi(word)
			if err != nil {
				return err
			}
			numbers = append(numbers, n)
		}
		*field = numbers
		return nil
	}
}

// run takes the figures and tells what it does.
func run(ctx context.Context, options measure.Options, only *regexp.Regexp, log io.Writer) (*report.Results, error) {
	var failed error
	results := options.Run(func(name string, f func(t testing.TB)) {
		if failed != nil || ctx.Err() != nil || only != nil && name != measure.Versions && !only.MatchString(name) {
			return
		}
		start := time.Now()
		fmt.Fprintln(log, name)
		failed = in(ctx, name, log, f)
		fmt.Fprintf(log, "  took %s\n", time.Since(start).Round(time.Second))
	})
	return results, errors.Join(failed, ctx.Err())
}

// write writes the results into the files.
func (o output) write(r *report.Results) error {
	if o.json != "" {
		if err := r.Write(o.json); err != nil {
			return err
		}
	}
	if o.page == "" {
		return nil
	}
	if err := page.Write(o.page, r.Text()); err != nil {
		return err
	}
	plots, err := r.Plots()
	if err != nil {
		return err
	}
	folder := strings.TrimSuffix(o.page, ".md")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, plot := range plots {
		if err := os.WriteFile(filepath.Join(folder, name), plot, 0o644); err != nil {
			return err
		}
	}
	return nil
}
