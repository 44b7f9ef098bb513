// Command zwrmd gives every microVM of the host a network of its own and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"zwrm/internal/config"
	"zwrm/internal/daemon"
	"zwrm/internal/version"
)

// The exit status of zwrmd.
const (
	exitOK     = 0
	exitFailed = 1 // at run time, or the host stands in the way
	exitUsage  = 2 // bad flags or configuration
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("zwrmd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "/etc/zwrm/config.toml", "configuration `file`")
	generate := flags.Bool("generate-config", false, "print the commented default configuration")
	check := flags.Bool("check-config", false, "check the configuration and the host, then exit")
	clean := flags.Bool("clean", false, "take away the rules that a zwrmd left which does not run any more, then exit")
	printVersion := flags.Bool("version", false, "print the version")
	debug := flags.Bool("debug", false, "log every request")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil || flags.NArg() > 0 {
		return exitUsage
	}
	switch {
	case *printVersion:
		fmt.Fprintln(stdout, "zwrmd", version.Version)
		return exitOK
	case *generate:
		fmt.Fprint(stdout, config.Default())
		return exitOK
	}
	cfg, err := config.Load(*path, os.Environ())
	if err != nil {
		if *check {
			fmt.Fprintln(stdout, err)
			return exitFailed
		}
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	if *check {
		if err := daemon.Check(ctx, cfg); err != nil {
			fmt.Fprintln(stdout, err)
			return exitFailed
		}
		return exitOK
	}
	work := runDaemon
	if *clean {
		work = daemon.Clean
	}
	if err := work(ctx, cfg, logger(stderr, *debug)); err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	return exitOK
}

func runDaemon(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	d, err := daemon.Open(ctx, cfg, log, nil)
	if err != nil {
		return err
	}
	return errors.Join(d.Run(ctx), d.Close())
}

func logger(w io.Writer, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
