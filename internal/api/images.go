package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"zwrm/internal/image"
	"zwrm/internal/peer"
	"zwrm/internal/wire"
)

type (
	addImageInput struct{ Body wire.AddImage }
	imageInput    struct {
		Image string `path:"image"`
	}
)

func (s service) registerImages(api huma.API) {
	handle(api, huma.Operation{
		OperationID: "list-images", Method: http.MethodGet, Path: "/v1/images", Summary: "List the guest images",
	}, s.listImages)
	handle(api, huma.Operation{
		OperationID: "add-image", Method: http.MethodPost, Path: "/v1/images", DefaultStatus: http.StatusCreated,
		Summary:     "Copy files of the host into a guest image",
		Description: "The files are those that whoever asks may read: by the socket, the user who connected; by TCP, nobody in particular.",
	}, s.addImage)
	handle(api, huma.Operation{
		OperationID: "remove-image", Method: http.MethodDelete, Path: "/v1/images/{image}", Summary: "Remove a guest image that no app uses",
	}, s.removeImage)
}

func (s service) listImages(context.Context, *struct{}) (*list[wire.Image], error) {
	images, err := s.Images.List()
	if err != nil {
		return nil, err
	}
	return &list[wire.Image]{convert(images, wireImage)}, nil
}

func (s service) addImage(ctx context.Context, in *addImageInput) (*answer[wire.Image], error) {
	name, err := parseName(in.Body.Name)
	if err != nil {
		return nil, err
	}
	img, err := s.Images.Add(ctx, image.Source{
		Name:   name,
		Kernel: in.Body.Kernel,
		Initrd: in.Body.Initrd,
		Rootfs: in.Body.Rootfs,
		Args:   in.Body.Args,
		Opener: peer.From(ctx),
	})
	if err != nil {
		return nil, err
	}
	return &answer[wire.Image]{wireImage(img)}, nil
}

func (s service) removeImage(ctx context.Context, in *imageInput) (*struct{}, error) {
	name, err := parseName(in.Image)
	if err != nil {
		return nil, err
	}
	return nil, s.ImageRemover.RemoveImage(ctx, name)
}
