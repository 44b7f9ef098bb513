package cli

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"zwrm/internal/wire"
)

func (s *session) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Add, list and remove guest images",
		GroupID: groupImages,
	}
	branch(cmd)
	cmd.AddCommand(s.imageListCommand(), s.imageAddCommand(), s.imageRemoveCommand())
	return cmd
}

func (s *session) imageListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the images",
		Example: "  zwrm image ls",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := s.client().Images(cmd.Context())
			if err != nil {
				return err
			}
			return s.answer(images, func(w io.Writer) {
				rows := make([][]string, len(images))
				for i, img := range images {
					rows[i] = []string{img.Name, moment(img.CreatedAt), img.Kernel, img.Initrd, img.Rootfs, img.Args}
				}
				table(w, []string{"NAME", "CREATED", "KERNEL", "INITRD", "ROOTFS", "ARGS"}, rows)
			})
		},
	}
}

func (s *session) imageAddCommand() *cobra.Command {
	var request wire.AddImage
	cmd := &cobra.Command{
		Use:     "add NAME --kernel FILE",
		Short:   "Copy files of this host into an image",
		Example: `  zwrm image add debian --kernel vmlinuz --initrd initrd.img --args "quiet"`,
		Args:    arguments("NAME"),
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Kernel, "kernel", "", "`FILE` with the kernel")
	flags.StringVar(&request.Initrd, "initrd", "", "`FILE` with the initramfs")
	flags.StringVar(&request.Rootfs, "rootfs", "", "`FILE` with a raw disk image")
	flags.StringVar(&request.Args, "args", "", "`ARGUMENTS` to append to the kernel command line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if request.Kernel == "" {
			return usagef("--kernel is missing")
		}
		request.Name = args[0]
		for _, path := range []*string{&request.Kernel, &request.Initrd, &request.Rootfs} {
			if err := makeAbsolute(path); err != nil {
				return err
			}
		}
		img, err := s.client().AddImage(cmd.Context(), request)
		if err != nil {
			return err
		}
		if s.output == formatJSON {
			return s.answer(img, nil)
		}
		return s.done("%s: added", img.Name)
	}
	return cmd
}

// makeAbsolute completes a path that is relative to the folder of whoever typed
// it: zwrmd, which opens the file, runs in another one.
func makeAbsolute(path *string) error {
	if *path == "" {
		return nil
	}
	full, err := filepath.Abs(*path)
	if err != nil {
		return fmt.Errorf("complete path %q: %w", *path, err)
	}
	*path = full
	return nil
}

func (s *session) imageRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME",
		Short:   "Remove an image that no app uses",
		Example: "  zwrm image rm debian",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.client().RemoveImage(cmd.Context(), args[0]); err != nil {
				return err
			}
			return s.done("%s: removed", args[0])
		},
	}
}
