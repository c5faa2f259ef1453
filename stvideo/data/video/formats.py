"""Which files are videos and images: by their names in folders, by their containers when they are opened."""

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".webm", ".mkv", ".avi", ".flv", ".wmv", ".asf", ".ogv", ".gif"),
    *(".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".dv"),
    *(".h264", ".264", ".h265", ".265", ".hevc", ".ivf"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# FFmpeg also reads playlists, subtitles, single images and plain text as if they were videos. These it may open.
CONTAINERS = (
    *("mov", "matroska", "webm", "avi", "flv", "live_flv", "asf", "asf_o", "ogg", "gif", "apng", "rm", "nut", "swf"),
    *("mpeg", "mpegvideo", "mpegts", "mpjpeg", "m4v", "mxf", "dv", "gxf", "lxf", "wtv", "nuv", "nsv", "pva", "ty"),
    *("h261", "h263", "h264", "hevc", "vvc", "evc", "ivf", "av1", "obu", "vc1", "vc1test", "cavsvideo", "avs2", "avs3"),
    *("dirac", "dnxhd", "mjpeg", "mjpeg_2000", "yuv4mpegpipe", "cine", "mlv", "film_cpk", "flic", "smk", "bink", "roq"),
)
