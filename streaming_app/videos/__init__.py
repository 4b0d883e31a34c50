"""The library of videos: finds the files, reads titles and lengths, makes posters, decides which bytes to send."""
