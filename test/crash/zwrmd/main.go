// Command zwrmd is zwrmd with somebody at the seam of its side effects, who ends it
// there or has one fail, as a test orders.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"zwrm/internal/config"
	"zwrm/internal/daemon"
	"zwrm/test/crash/order"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string) error {
	cfg, err := config.Load(path, os.Environ())
	if err != nil {
		return err
	}
	taker, err := order.New()
	if err != nil {
		return err
	}
	d, err := daemon.Open(ctx, cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)), taker)
	if err != nil {
		return err
	}
	return errors.Join(d.Run(ctx), d.Close())
}
